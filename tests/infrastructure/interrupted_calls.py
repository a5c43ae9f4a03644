"""A program that computes in several processes until it is interrupted. Each process says that it has begun."""

import os
import sys
import time

import click

from infrastructure.audit.parallel import results_in_order


def say(line):
    os.write(sys.stdout.fileno(), f"{line}\n".encode())  # at once, so that lines of several processes do not mix


def begin():
    say("begun")


def compute(seconds):
    say("computing")
    time.sleep(seconds)
    return seconds


@click.command()
@click.argument("seconds", type=float)
def main(seconds):
    with results_in_order(compute, [0.0, seconds, seconds, seconds], processes=2, initializer=begin) as results:
        for result in results:
            say(f"result {result}")


if __name__ == "__main__":
    sys.exit(main())
