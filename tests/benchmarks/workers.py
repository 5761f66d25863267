"""Client side of the processes that measuring.run_worker serves."""
import contextlib
import json
import os
import subprocess
import tempfile

SECONDS_TO_END = 20


class WorkerError(Exception):
    """A process cannot run the program; the message is one line."""


class Group:
    """Processes of one command, built and warmed up one after the other, timed together. version: the program's."""

    def __init__(self, command: list, processes: int, threads: int):
        self.workers: list[Worker] = []
        try:
            for _ in range(processes):
                self.workers.append(Worker(command, threads))
                self.version = self.workers[-1].read()["version"]
        except (WorkerError, KeyboardInterrupt):
            self.close()
            raise

    def time(self) -> tuple:
        """Return the seconds of the slowest worker, and the total CPU seconds and peak MB."""
        for worker in self.workers:
            worker.ask()
        times = [worker.read() for worker in self.workers]
        return max(time["s"] for time in times), sum(time["cpu_s"] for time in times), sum(time["peak_rss_mb"] for time in times)

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


class Worker:
    """A process that times one call per line of input."""

    def __init__(self, command: list, threads: int):
        self.errors = tempfile.TemporaryFile("w+", errors="replace")    # noqa: SIM115 - close() closes it
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
                                            env=os.environ | {"OMP_NUM_THREADS": str(threads)})
        except OSError as error:
            self.errors.close()
            raise WorkerError(f"{command[0]}: {error.strerror}") from error

    def ask(self) -> None:
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except OSError as error:
            raise WorkerError(self.last_words()) from error

    def read(self) -> dict:
        """Return the next JSON line; skip other output."""
        for line in self.process.stdout:
            if line.startswith("{"):
                answer = json.loads(line)
                if "missing" in answer:
                    raise WorkerError(answer["missing"])
                return answer
        raise WorkerError(self.last_words())

    def last_words(self) -> str:
        """Wait for the process to end; return its status and its last line on stderr."""
        status = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return f"status {status}" + (f", {lines[-1].strip()}" if lines else "")

    def close(self) -> None:
        self.process.stdout.close()
        with contextlib.suppress(OSError):      # the process has ended
            self.process.stdin.close()
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()
