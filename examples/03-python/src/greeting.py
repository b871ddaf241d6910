"""What the function says. Plain Python without HTTP, so its tests run on any machine."""


def compose(greeting: str | None, subject: str | None) -> str:
    """The text for a caller; `greeting` is the environment variable `GREETING` in vedette.yaml."""
    return f"{greeting or 'Hello'}, {subject or 'stranger'}!\n"
