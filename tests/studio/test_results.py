"""Results of jobs as others read them while one thread adds pictures."""

from contextlib import nullcontext

import pytest
from toys import VOCABULARY

from energyql.studio.jobs import Job
from energyql.studio.limits import Limits
from energyql.studio.problems import StudioError
from energyql.studio.results import JobResult, ResultStore
from energyql.studio.schemas import Picture


def test_whoever_sees_that_it_is_done_sees_all_pictures():
    result = JobResult("draw", 1, VOCABULARY)

    class Finishing(Job):
        """Ends, last picture and all, just before somebody looks at its state."""

        @property
        def state(self):
            result.pictures = [Picture.model_construct(position=0)]
            return "done"

        @state.setter
        def state(self, value):
            pass

    job = Finishing(lambda job: None, Limits())
    result.pictures = []
    info = result.describe(job, 0, 0)
    assert (info.state, info.done) == ("done", 1)


def test_finished_results_are_dropped_when_they_are_old_or_memory_is_short():
    jobs = [Job(lambda job: None, Limits()) for _ in range(3)]
    # The two newest are kept in any case: there is room for twice the largest.
    for kept, limits in ([], Limits(kept_seconds=0)), (jobs[1:], Limits(kept_bytes=0)), (jobs, Limits()):
        store = ResultStore(limits)
        for job in jobs:
            store.put(job, JobResult("draw", 1, VOCABULARY, pictures=[Picture.model_construct(image="x", alt="")]))
            job.run()
            job.seen -= 1
        for job in jobs:
            with nullcontext() if job in kept else pytest.raises(StudioError, match="no such request"):
                assert store.get(job.id)[0] is job
