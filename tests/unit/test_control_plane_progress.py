import io

import pytest

from pointsman.controlplane.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_in_a_log_a_long_step_speaks_at_its_ends_and_every_twenty_seconds() -> None:
    log, clock = io.StringIO(), Clock()

    with Progress(log, "Building etcd", clock) as line:
        for packages in range(70):
            clock.now += 1
            line.tick(f"{packages + 1} packages")

    assert log.getvalue().splitlines() == [
        "Building etcd · 0:00",
        "Building etcd · 0:20 · 20 packages",
        "Building etcd · 0:40 · 40 packages",
        "Building etcd · 1:00 · 60 packages",
        "Building etcd · 1:10 · done",
    ]


def test_on_a_terminal_one_line_renews_itself() -> None:
    terminal, clock = Terminal(), Clock()

    with Progress(terminal, "Downloading etcd", clock) as line:
        clock.now += 65
        line.tick("12 of 26 MB")

    assert terminal.getvalue() == (
        "\rDownloading etcd · 0:00\x1b[K"
        "\rDownloading etcd · 1:05 · 12 of 26 MB\x1b[K"
        "\rDownloading etcd · 1:05 · done\x1b[K\n"
    )


def test_a_step_that_fails_says_so() -> None:
    log, clock = io.StringIO(), Clock()

    with pytest.raises(KeyboardInterrupt), Progress(log, "Building etcd", clock):
        clock.now += 5
        raise KeyboardInterrupt

    assert log.getvalue().splitlines()[-1] == "Building etcd · 0:05 · stopped"
