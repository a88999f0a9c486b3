"""Pictures of the dashboard over a real system under load: `pictures.py SECONDS PNG PNG_OF_THE_WHOLE`. A stand-in page
draws them (dashboard.html). They show the last half of the time, when windows of rates are full."""

import sys
import time

import run
import scene


def picture(system, start, path, *height):
    """Draws the dashboard from `start` to now; titles of the panels without data."""
    command = ["node", run.ROOT / "tests/chart/pictures.mjs", run.ROOT, system.prometheus, str(int(start)), str(int(time.time())), path]
    return run.run(*command, *height).stdout.strip()


def main(seconds, first, whole):
    with scene.system() as system:
        start = time.time()
        while time.time() < start + float(seconds):
            system.load()
        start += float(seconds) / 2
        picture(system, start, first, "1000")
        print("without data:", picture(system, start, whole))


main(*sys.argv[1:])
