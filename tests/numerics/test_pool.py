"""Pieces in threads of one core each: what is set holds there, nothing hangs, and no thread keeps a wrong number."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from _thread import start_new_thread
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest
import torch

from energyql.numerics import pool
from energyql.numerics.pool import LARGE, always_in_pool, in_pool, one_thread, piece_count, thread_count

PIECES = [(i,) for i in range(8)]


@pytest.fixture(autouse=True)
def threads():
    """Two threads of torch for a test; the function sets another number."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield torch.set_num_threads
    torch.set_num_threads(before)


def here(_):
    """The thread that computes a piece, and its number of threads of torch."""
    return threading.get_ident(), torch.get_num_threads()


def state(_):
    gradients = torch.ones(1, requires_grad=True).mul(2).requires_grad
    return torch.is_inference_mode_enabled(), gradients, torch.get_default_dtype()


class TestThreads:
    def test_each_has_one_thread_of_torch(self):
        done = in_pool(here, PIECES)
        assert {number for _, number in done} == {1}
        assert threading.get_ident() not in {ident for ident, _ in done}

    def test_results_are_in_order(self):
        assert in_pool(lambda i: 2 * i, PIECES) == [0, 2, 4, 6, 8, 10, 12, 14]

    def test_other_threads_keep_their_number(self, threads):
        threads(3)
        in_pool(here, PIECES)
        assert (torch.get_num_threads(), later()) == (3, 3)

    @pytest.mark.parametrize(("number", "pieces", "pooled"), [(1, 8, 0), (2, 1, 0), (2, 0, 0), (2, 5, 5)])
    def test_few_pieces_are_computed_here(self, threads, number, pieces, pooled):
        threads(number)
        done = in_pool(here, PIECES[:pieces])
        assert done[pooled:] == [(threading.get_ident(), number)] * (pieces - pooled)
        assert all(count == 1 for _, count in done[:pooled])

    def test_few_pieces_are_computed_there_on_demand(self):
        with always_in_pool():
            assert {number for _, number in in_pool(here, PIECES[:1])} == {1}
            with always_in_pool(False):
                assert {number for _, number in in_pool(here, PIECES[:1])} == {1}
        assert in_pool(here, PIECES[:1]) == [(threading.get_ident(), 2)]

    def test_a_pool_in_a_pool_does_not_wait_for_itself(self):
        done = in_pool(lambda i: {here(j) for j in range(3)} == set(in_pool(here, PIECES)), PIECES)
        assert done == [True] * 8

    @pytest.mark.parametrize(
        ("number", "rows", "count"), [(1, 64, 8), (1, 0, 1), (2, 64, 16), (2, 5, 2), (2, 9, 4), (2, 1, 1), (16, 16, 16)]
    )
    def test_numbers_of_pieces(self, threads, number, rows, count):
        threads(number)
        assert piece_count(rows, 8) == count

    def test_pieces_of_one_row(self):
        assert (piece_count(9, 8, 1), piece_count(1, 8, 1)) == (9, 1)


def later():
    """The number of threads of torch in a thread that begins now."""
    numbers = []
    thread = threading.Thread(target=lambda: numbers.extend([thread_count(), torch.get_num_threads()][1:]))
    thread.start()
    thread.join()
    return numbers[0]


class TestOneThread:
    def test_is_one_here_and_for_nobody_else(self, threads):
        threads(3)
        with one_thread():
            assert (torch.get_num_threads(), later()) == (1, 3)
            with one_thread():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 1
        assert (torch.get_num_threads(), later()) == (3, 3)

    def test_large_operations_keep_all(self):
        with one_thread(LARGE):
            assert torch.get_num_threads() == 2
        with one_thread(LARGE - 1):
            assert torch.get_num_threads() == 1

    def test_the_pool_keeps_its_size(self, threads):
        threads(5)  # a size for which there is no pool yet
        with one_thread():
            done = in_pool(lambda i: (here(i), in_pool(here, PIECES)), PIECES)
            assert torch.get_num_threads() == 1
        assert {number for (_, number), _ in done} == {1}
        assert threading.get_ident() not in {ident for (ident, _), _ in done}
        assert all(inner == [own] * len(PIECES) for own, inner in done)  # a piece begins no other pool
        assert torch.get_num_threads() == 5

    def test_an_error_ends_it(self):
        with pytest.raises(ValueError, match="inside"), one_thread():
            raise ValueError("inside")
        assert torch.get_num_threads() == 2

    @pytest.mark.parametrize("begins", [False, True])
    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    def test_an_error_at_its_begin_ends_it(self, begins, error, monkeypatch):
        ended = threading.Event()

        def fail(function, arguments):
            if begins:
                start_new_thread(lambda: (function(*arguments), ended.set()), ())
            raise error

        monkeypatch.setattr(pool, "start_new_thread", fail)
        with pytest.raises(error), one_thread():
            pass
        monkeypatch.undo()
        assert not begins or ended.wait(300)  # else its number would be that of the next test
        assert (torch.get_num_threads(), thread_count(), later()) == (2, 2, 2)

    def test_threads_that_begin_meanwhile_keep_all(self, threads, monkeypatch):
        threads(3)
        begins, numbers = threading.Event(), []

        def slow(function, arguments):
            begins.set()
            start_new_thread(lambda: (time.sleep(0.3), function(*arguments)), ())

        def first_use():
            begins.wait()
            numbers.append(thread_count())
            numbers.append(torch.get_num_threads())

        other = threading.Thread(target=first_use)
        monkeypatch.setattr(pool, "start_new_thread", slow)
        other.start()
        with one_thread():
            assert (torch.get_num_threads(), thread_count(), numbers) == (1, 3, [])  # nobody waits here
            with one_thread():
                assert numbers == []
            other.join()
            assert torch.get_num_threads() == 1
        assert numbers == [3, 3]


class TestWhatIsSetHoldsInAPiece:
    @pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
    def test_gradients(self, mode):
        with mode():
            expected = state(0)
            assert in_pool(state, PIECES) == [expected] * 8
        assert in_pool(state, PIECES) == [(False, True, torch.float32)] * 8

    def test_default_dtype(self):
        torch.set_default_dtype(torch.float64)
        try:
            assert in_pool(lambda _: torch.ones(1).dtype, PIECES) == [torch.float64] * 8
        finally:
            torch.set_default_dtype(torch.float32)

    def test_context_variables(self):
        variable = ContextVar("variable", default=0)
        token = variable.set(7)
        try:
            assert in_pool(lambda _: variable.get(), PIECES) == [7] * 8
        finally:
            variable.reset(token)

    def test_autocast(self):
        x = torch.ones(2, 2)
        with torch.autocast("cpu", torch.bfloat16):
            assert {product.dtype for product in in_pool(lambda _: x @ x, PIECES)} == {torch.bfloat16}


@pytest.fixture
def no_collection():
    """No garbage is collected: Python only prints what a callback of a collection raises, also a KeyboardInterrupt."""
    gc.disable()
    yield
    gc.enable()


class TestEnds:
    def test_an_exception_ends_the_others(self):
        begun = []

        def fail(i):
            begun.append(i)
            threading.Event().wait(0.05)
            if i == 3:
                raise ValueError("a piece")

        with pytest.raises(ValueError, match="a piece"):
            in_pool(fail, [(i,) for i in range(100)])
        count = len(begun)
        assert count < 20
        assert in_pool(lambda i: i, PIECES) == list(range(8))
        assert len(begun) == count

    @pytest.mark.skipif(os.name == "nt", reason="Windows sends no signal to a process")
    def test_control_c_ends_the_wait(self, no_collection):
        done = []

        def slow(i):
            if i == 3:
                os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.1)
            done.append(i)

        with pytest.raises(KeyboardInterrupt):
            in_pool(slow, [(i,) for i in range(100)])
        ended = list(done)
        threading.Event().wait(0.3)
        assert len(ended) < 20
        assert done == ended  # nothing goes on after the end

    @pytest.mark.parametrize("last", [1, 50])
    def test_control_c_within_a_submission(self, monkeypatch, last):
        in_pool(here, PIECES)  # the pool is there
        submit, count, begun, ended = ThreadPoolExecutor.submit, iter(range(last + 1)), [], []

        def interrupted(pool, *call):
            submit(pool, *call)
            if next(count) == last:
                raise KeyboardInterrupt

        def slow(i):
            begun.append(i)
            threading.Event().wait(0.1)
            ended.append(i)

        monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            in_pool(slow, [(i,) for i in range(100)])
        assert sorted(begun) == sorted(ended)
        count = len(begun)
        threading.Event().wait(0.3)
        assert len(begun) == count < 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_has_a_pool_of_its_own():
    in_pool(here, PIECES)
    child = os.fork()
    if child == 0:
        threading.Timer(200, os._exit, (1,)).start()
        os._exit(0 if in_pool(lambda i: i, PIECES) == list(range(8)) else 2)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_while_another_thread_looks_whether_the_number_is_settled(monkeypatch):
    class Looked(threading.Event):
        def wait(self, timeout=None):
            settled = super().wait(timeout)
            self._cond.acquire()  # as a thread may do at once that looks too
            return settled

    looked = Looked()
    looked.set()
    monkeypatch.setattr(pool, "_settled", looked)
    child = os.fork()
    if child == 0:
        threading.Timer(200, os._exit, (1,)).start()
        with one_thread():
            os._exit(0 if thread_count() == 2 else 2)
    looked._cond.release()
    assert os.waitpid(child, 0)[1] == 0


def test_a_thread_that_ends_after_the_main_thread():
    code = """
import threading, torch
from energyql.numerics.pool import in_pool
torch.set_num_threads(2)
def work():
    threading.main_thread().join()
    print(in_pool(lambda i: i, [(i,) for i in range(8)]))
threading.Thread(target=work).start()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == str([*range(8)]), done.stderr
