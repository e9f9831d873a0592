"""Drawing of pictures that satisfy a query: one way of eight stages, from a model to results.

Each stage is a module; other rooms call only these functions of them:

- open: `session.open_session` by cli.edit, cli.main, dataset.shard, editing.edit, editing.filmstrip, editing.invert,
  evaluation.evaluate, evaluation.judged, gallery.gallery, training.proposals
- plan: `plan.plan_query` by cli.edit, cli.main, dataset.shard, editing.invert, editing.step, evaluation.judged,
  gallery.gallery, studio.studio, training.proposals; `plan.check_readers` by studio.descriptions; `plan.solved_by` by
  editing.edit, editing.invert
- calibrate: `calibrate.calibrate` by dataset.run, dataset.shard
- propose: later stages; `propose.rows_of` by studio.tasks
- render: later stages
- read: `read.show` by editing.latents, studio.tasks
- keep: the stage run
- run: `run.run` by studio.tasks; `run.draw` by cli.edit, cli.main, dataset.run, dataset.shard, gallery.gallery;
  `run.draw_numbers` by studio.studio; `run.draw_until_satisfied` by cli.main; `run.run_latents` by studio.tasks,
  training.proposals; `run.stream_batches` and `run.check_judged` by dataset.shard

What a run has used is in a `ledger.Ledger`, and what it returned in a `result.Result`. `score` needs no run: it gives
the energies of a query for the rows of a table of predictions.
"""
