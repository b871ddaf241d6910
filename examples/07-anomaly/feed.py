"""What a pump's sensors say, one event a line: a warm pump that runs, and now and then a failure.

python feed.py                     # 2,000 events, as fast as they are read; a failure at the 1,500th
python feed.py --rate 20           # 20 a second
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time


def event(number: int, failure: int, drawn: random.Random) -> dict[str, float | int | str]:
    """One event; in the five from `failure` on a bearing runs hot."""
    hot = failure <= number < failure + 5
    return {
        "id": number,
        "at": time.strftime("%H:%M:%S"),
        "temperature": round(drawn.gauss(71.0, 1.5) + (38.0 if hot else 0.0), 2),
        "pressure": round(drawn.gauss(4.2, 0.15) - (2.6 if hot else 0.0), 3),
        "vibration": round(abs(drawn.gauss(0.8, 0.1)) + (4.0 if hot else 0.0), 3),
    }


def main() -> None:
    """Prints the events."""
    options = argparse.ArgumentParser()
    options.add_argument("--events", type=int, default=2_000)
    options.add_argument("--failure", type=int, default=1_500)
    options.add_argument("--rate", type=float, default=0.0, help="events a second; 0: no pause")
    options.add_argument("--seed", type=int, default=1)
    said = options.parse_args()
    drawn = random.Random(said.seed)
    for number in range(1, said.events + 1):
        sys.stdout.write(json.dumps(event(number, said.failure, drawn)) + "\n")
        if said.rate:
            sys.stdout.flush()
            time.sleep(1 / said.rate)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.stderr.close()
