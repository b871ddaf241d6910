"""P-256 keys in a PKCS#11 token, which sign there and never leave it (RFC 7512, PKCS #11 v2.40 §2.3).

Owns: the URI, the session with the token, and keys that look to `cryptography` as any other. Must not: take a PIN from
anywhere but a file, or show it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import unquote

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import load_der_public_key

from vedette.errors import ConfigError, UnavailableError
from vedette.identity.sealing import read_private

SCHEME: Final = "pkcs11:"
_PATH: Final = frozenset({"token", "object", "type"})
_QUERY: Final = frozenset({"module-path", "pin-source"})
_LONGEST: Final = 1_024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """Where a key is: the module (a library), the token, the key's label, and the file with the PIN."""

    module: Path
    token: str
    label: str
    pin_file: Path


def parse_uri(text: str) -> Pkcs11Uri:
    """Reads `pkcs11:token=…;object=…?module-path=…&pin-source=…` (RFC 7512 §2.3).

    Raises `ConfigError` ca_key_invalid.
    """
    path, _, query = text.removeprefix(SCHEME).partition("?")
    if not text.startswith(SCHEME) or len(text) > _LONGEST:
        raise _invalid("it does not begin with pkcs11:")
    found = _attributes(path.split(";"), _PATH) | _attributes(query.split("&"), _QUERY)
    for name in ("token", "object", "module-path", "pin-source"):
        if not found.get(name):
            raise _invalid(f"it has no {name}")
    if found.get("type", "private") != "private":
        raise _invalid("its type is not private")
    module = Path(found["module-path"])
    pin = Path(found["pin-source"].removeprefix("file://").removeprefix("file:"))
    if not module.is_absolute() or not pin.is_absolute():
        raise _invalid("module-path and pin-source are absolute paths")
    return Pkcs11Uri(module, found["token"], found["object"], pin)


def _attributes(parts: list[str], known: frozenset[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, parts):
        name, equals, value = part.partition("=")
        if name == "pin-value":
            raise _invalid("a PIN has no place in a URI; name a file: pin-source=/…")
        if name not in known or name in found or not equals:
            raise _invalid(f"its attribute {name[:40]!r} is unknown, doubled or empty")
        found[name] = unquote(value, errors="strict")
    return found


class Pkcs11Store:
    """The keys of one token. Methods may be called from any thread: one session, one thread at a time."""

    def __init__(self, uri: Pkcs11Uri) -> None:
        """Raises `ConfigError` ca_key_invalid when the Python package is missing."""
        try:
            import pkcs11
        except ImportError:
            raise _invalid(
                "the package python-pkcs11 is not installed: pip install 'vedette[pkcs11]'"
            ) from None
        self._api: Any = pkcs11
        self._uri = uri
        self._lock = threading.RLock()
        self._session: Any = None
        self._barred: Exception | None = None

    def __repr__(self) -> str:
        return f"Pkcs11Store({self.label!r})"

    @property
    def label(self) -> str:
        """The label of the first key; those that follow have more after it."""
        return self._uri.label

    def require(self) -> None:
        """Raises `ConfigError`, `TrustError` or `UnavailableError` unless the token can be logged in to."""
        self._asked(lambda session: None)

    def load(self, label: str) -> Pkcs11Key:
        """The P-256 key with this label. Raises `ConfigError` key_unreadable, `UnavailableError` key_store_away."""
        public = self._asked(lambda session: self._public(session, label))
        if public is None:
            raise ConfigError("key_unreadable", f"the token has no P-256 key {label!r}")
        return Pkcs11Key(self, label, public)

    def ensure(self, label: str) -> Pkcs11Key:
        """The key with this label, made when there is none. Raises as `load`."""
        if self._asked(lambda session: self._public(session, label)) is None:
            self.create(label)
        return self.load(label)

    def create(self, label: str) -> Pkcs11Key:
        """A new key; it is in the token when this returns. Raises `UnavailableError` key_store_away."""
        self._asked(lambda session: self._generate(session, label))
        return self.load(label)

    def remove(self, label: str) -> None:
        """Destroys a key. Raises `UnavailableError` key_store_away."""

        def destroy(session: Any) -> None:
            for one in list(session.get_objects({self._api.Attribute.LABEL: label})):
                one.destroy()

        self._asked(destroy)

    def sign(self, label: str, digest: bytes) -> bytes:
        """The ECDSA signature of a digest, DER. Raises `UnavailableError` key_store_away."""
        from pkcs11.util.ec import encode_ecdsa_signature

        def signed(session: Any) -> bytes:
            key = self._object(session, label, self._api.ObjectClass.PRIVATE_KEY)
            raw: bytes = key.sign(digest, mechanism=self._api.Mechanism.ECDSA)
            return raw

        return bytes(encode_ecdsa_signature(self._asked(signed)))

    def _asked(self, act: Callable[[Any], T]) -> T:
        """Asks the token; once more in a new session, when that was lost."""
        with self._lock:
            if self._barred is not None:
                raise _away(self._barred)
            for is_last in (False, True):
                try:
                    if self._session is None:
                        self._session = self._opened()
                    return act(self._session)
                except self._api.PKCS11Error as error:
                    self._close()
                    if isinstance(error, self._api.PinIncorrect):
                        self._barred = error  # a few wrong PINs lock a token
                    if is_last or self._barred is not None:
                        raise _away(error) from None
            raise AssertionError("one of the two tries ends it")

    def _opened(self) -> Any:
        lines = read_private(self._uri.pin_file).decode("utf-8", "replace").splitlines()
        token = self._api.lib(str(self._uri.module)).get_token(token_label=self._uri.token)
        try:
            return token.open(rw=True, user_pin=lines[0] if lines else "")
        except self._api.UserAlreadyLoggedIn:  # a login is of the whole process (PKCS #11 §2.6.8)
            return token.open(rw=True)

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except self._api.PKCS11Error:
                return  # it was lost

    def _generate(self, session: Any, label: str) -> None:
        from pkcs11.util.ec import encode_named_curve_parameters

        attribute = self._api.Attribute
        curve = {attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        parameters = session.create_domain_parameters(self._api.KeyType.EC, curve, local=True)
        kept = {attribute.SENSITIVE: True, attribute.EXTRACTABLE: False}
        parameters.generate_keypair(store=True, label=label, private_template=kept)

    def _public(self, session: Any, label: str) -> ec.EllipticCurvePublicKey | None:
        from pkcs11.util.ec import encode_ec_public_key

        held = self._object(session, label, self._api.ObjectClass.PRIVATE_KEY)
        public = self._object(session, label, self._api.ObjectClass.PUBLIC_KEY)
        if held is None or public is None:
            return None
        key = load_der_public_key(encode_ec_public_key(public))
        is_p256 = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1"
        return key if is_p256 else None  # type: ignore[return-value]

    def _object(self, session: Any, label: str, kind: Any) -> Any:
        attribute = self._api.Attribute
        wanted = {attribute.LABEL: label, attribute.CLASS: kind}
        found = list(session.get_objects({**wanted, attribute.KEY_TYPE: self._api.KeyType.EC}))
        if len(found) > 1:
            raise ConfigError("key_unreadable", f"the token has {len(found)} keys {label!r}")
        return found[0] if found else None


class Pkcs11Key(ec.EllipticCurvePrivateKey):
    """A P-256 key in a token. What would show the key is refused."""

    def __init__(self, store: Pkcs11Store, label: str, public: ec.EllipticCurvePublicKey) -> None:
        self._store = store
        self._label = label
        self._public = public

    def __repr__(self) -> str:
        return f"Pkcs11Key({self._label!r})"

    def __copy__(self) -> Pkcs11Key:
        return self

    def __deepcopy__(self, memo: dict[Any, Any]) -> Pkcs11Key:
        return self

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Its public key."""
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        """P-256."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """256."""
        return self._public.key_size

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """ECDSA with SHA-256, DER. Raises `UnavailableError` key_store_away."""
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, Prehashed) or algorithm.name != "sha256":
            raise ValueError("this key signs with SHA-256")
        hashed = Hash(SHA256())
        hashed.update(data)
        return self._store.sign(self._label, hashed.finalize())

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """Not what a CA's key is for."""
        self._refuse()

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        """It does not leave the token."""
        self._refuse()

    def private_bytes(self, encoding: Any, format: Any, encryption_algorithm: Any) -> bytes:
        """It does not leave the token."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError("ca_key_invalid", "the key of the CA does not leave its token")


def _invalid(why: str) -> ConfigError:
    return ConfigError("ca_key_invalid", f"the CA's key cannot be there: {why}")


def _away(error: Exception) -> UnavailableError:
    # The kind of error alone: some modules put more into the text than they should.
    return UnavailableError("key_store_away", f"the token of the CA's key: {type(error).__name__}")
