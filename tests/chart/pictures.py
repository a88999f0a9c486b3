"""Pictures of the dashboard over a real system under load: `pictures.py SECONDS PNG [PNG OF THE WHOLE]`. A stand-in
page draws them (dashboard.html). The part above the fold is the first picture."""

import os
import sys
import time

import run
import scene


def picture(system, start, path, *height):
    """Draws the dashboard from `start` to now; titles of the panels without data."""
    command = ["node", run.ROOT / "tests/chart/pictures.mjs", run.ROOT, system.prometheus, str(int(start)), str(int(time.time())), path]
    return run.run(*command, *height, env=os.environ).stdout.strip()


def main(seconds, first, *whole):
    with scene.system() as system:
        start = time.time()
        while time.time() < start + float(seconds):
            system.load()
        print("without data:", picture(system, start, first, "1000"))
        for path in whole:
            picture(system, start, path)


main(*sys.argv[1:])
