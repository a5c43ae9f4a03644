"""A program that computes in several processes until it is interrupted. Each process says that it has begun."""

import sys
import time

import click

from infrastructure.audit.parallel import results_in_order


def begin():
    print("begun", flush=True)


def compute(seconds):
    print("computing", flush=True)
    time.sleep(seconds)
    return seconds


@click.command()
@click.argument("seconds", type=float)
def main(seconds):
    with results_in_order(compute, [0.0, seconds, seconds, seconds], processes=2, initializer=begin) as results:
        for result in results:
            print("result", result, flush=True)


if __name__ == "__main__":
    sys.exit(main())
