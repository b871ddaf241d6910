"""The group that a server chooses is read from its first flight."""

from __future__ import annotations

import socket
import threading

import pytest
from tests.verification.dishonest import Dishonest

from vedette.verification.first_flight import X25519, X25519MLKEM768, chosen_group
from vedette.verification.twin import Twin


def test_a_classic_server_and_the_node_choose_differently(twin: Twin, dishonest: Dishonest) -> None:
    offered = [X25519MLKEM768, X25519]
    assert chosen_group(twin.place.tls.address, offered) == X25519MLKEM768
    assert chosen_group(dishonest.address, offered) == X25519


def test_an_answer_that_is_no_server_hello_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"\x15\x03\x03\x00\x02\x02\x28")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ValueError, match="no ServerHello"):
            chosen_group(server.getsockname(), [X25519])
        thread.join()
