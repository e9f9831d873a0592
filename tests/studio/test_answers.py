"""What others see while one thread adds pictures."""

from toys import VOCABULARY

from energyql.studio.answers import Answer
from energyql.studio.jobs import Job
from energyql.studio.limits import Limits
from energyql.studio.schemas import Picture


def test_whoever_sees_that_it_is_done_sees_all_pictures():
    answer = Answer("draw", 1, VOCABULARY)

    class Finishing(Job):
        """Ends, last picture and all, just before somebody looks at its state."""

        @property
        def state(self):
            answer.pictures = [Picture.model_construct(position=0)]
            return "done"

        @state.setter
        def state(self, value):
            pass

    job = Finishing(lambda job: None, Limits())
    answer.pictures = []
    told = answer.describe(job, 0, 0)
    assert (told.state, told.done) == ("done", 1)
