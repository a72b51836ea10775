"""Decisions that other programs recorded, read into a store: one file per program or format.

Add one: put a file here (or an entry point in the group `moescope.importers` of another package). An importer is a module with

* a docstring: first line `Program: what of it is read`, then the forms;
* `accepts(head) -> bool`: whether a file, by its name and first records, is of this form (`LAST = True`: asked after the
others);
* `read(path, ask) -> Iterator[Captured | Counts | Fault]`: sequences, each checked by the rules of `_core/rules.py` when it is
  stored; a Fault that is yielded stands for one sequence that is refused;
* `OPTIONS`: {name: words} of the KEY=VALUE that it takes.

`_core`: a model's facts, payloads, planes of layers, rules, and the way into a store; `_forms`: what is read of files that say
more than a record at a time.
"""
