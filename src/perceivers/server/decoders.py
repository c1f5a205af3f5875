"""Processes that decode uploads. One that dies or takes too long is replaced, and only its request is lost."""

import asyncio
import multiprocessing
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from perceivers.data.loading.sample_cache import unpack
from perceivers.server.decoding import KEY, Job, Prepared, Refusal, Setup, serve_jobs

__all__ = ["DecoderDiedError", "Decoders"]

_START = 120.0  # seconds that a process may take until it is ready


class DecoderDiedError(RuntimeError):
    """The process that decoded an upload has ended before it answered."""


class DecoderProcess:
    """One process, started anew whenever it has died.

    Args:
        setup: What it must know of the run.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.starts = 0
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Its number, None before it is started."""
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            DecoderDiedError: If it does not get ready.
        """
        # Forked from a process that has imported everything and has one thread: starting takes milliseconds.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["perceivers.server.decoding"])
        ours, theirs = context.Pipe()
        process = context.Process(target=serve_jobs, args=(theirs, self.setup), daemon=True)
        process.start()
        theirs.close()
        self._process, self._connection = process, ours
        self.starts += 1
        self._receive(time.monotonic() + _START)

    def run(self, job: Job, deadline: float) -> Prepared | Refusal:
        """Return what the process makes of a job.

        Args:
            job: What was sent.
            deadline: When it must be done, by `time.monotonic`.

        Raises:
            DecoderDiedError: If the process dies.
            TimeoutError: If it takes too long. It is ended then.
        """
        if not self.is_running:
            self.start()
        assert self._connection is not None
        try:
            self._connection.send(job)
        except OSError as error:
            self.stop()
            raise DecoderDiedError(_LOST) from error
        answer = unpack(self._receive(deadline), KEY)
        if not isinstance(answer, Prepared | Refusal):
            self.stop()
            raise DecoderDiedError(_LOST)
        return answer

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def _receive(self, deadline: float) -> bytes:
        assert self._connection is not None
        try:
            if not self._connection.poll(max(deadline - time.monotonic(), 0)):
                self.stop()
                raise TimeoutError
            return self._connection.recv_bytes()
        except (EOFError, ConnectionError) as error:
            self.stop()
            raise DecoderDiedError(_LOST) from error


_LOST = (
    "The process that decoded what was sent has ended before it was done, perhaps for want of memory. It was started "
    "again: other requests are not concerned. Try once more; if it happens again, it is this file that it cannot take."
)


class Decoders:
    """Several such processes, and who waits for them.

    Args:
        setup: What they must know of the run.
        count: How many.
    """

    def __init__(self, setup: Setup, count: int) -> None:
        self.processes = [DecoderProcess(setup) for _ in range(count)]
        self._free: queue.SimpleQueue[DecoderProcess] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decoder")

    @property
    def restarts(self) -> int:
        """How often a process was started again."""
        return sum(max(process.starts - 1, 0) for process in self.processes)

    def start(self) -> None:
        """Start all of them and wait until they are ready."""
        for process in self.processes:
            process.start()
            self._free.put(process)

    async def decode(self, job: Job, deadline: float) -> Prepared | Refusal:
        """Return what a process makes of a job, as soon as one is free. Raises what `DecoderProcess.run` raises."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self._run, job, deadline
        )

    def stop(self) -> None:
        """End all of them."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self.processes:
            process.stop()

    def _run(self, job: Job, deadline: float) -> Prepared | Refusal:
        if time.monotonic() >= deadline:
            raise TimeoutError
        process = self._free.get()
        try:
            return process.run(job, deadline)
        finally:
            self._free.put(process)
