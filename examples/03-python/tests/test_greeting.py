"""Run with: PYTHONPATH=src python3 -m unittest discover tests"""

import unittest

from greeting import compose


class Greeting(unittest.TestCase):
    def test_a_proven_caller_is_greeted_by_name(self) -> None:
        assert compose("Welcome", "alice") == "Welcome, alice!\n"

    def test_a_caller_without_a_token_is_a_stranger(self) -> None:
        assert compose(None, None) == "Hello, stranger!\n"


if __name__ == "__main__":
    unittest.main()
