"""Results of jobs as others read them while one thread adds pictures."""

from toys import VOCABULARY

from energyql.studio.jobs import Job
from energyql.studio.limits import Limits
from energyql.studio.results import JobResult
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
