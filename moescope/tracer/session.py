"""`Tracer`: listen to a model's routers while somebody runs it, and keep every decision in a store."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from ..contracts import Site
from ..errors import ModelError
from ..models.pipelines import Pipeline, is_pipeline, never_run
from ..models.sources import unwrap
from ..proof import Proof
from ..store import RunWriter
from ..store.files.interrupts import defer_interrupt
from ..store.remote.addresses import local
from .activations.observers import add_measures
from .activations.weight_cosines import compared
from .attaching import attached
from .capture.structure import Structure
from .handover.record_batches import Forward, Job
from .handover.sink import Sink
from .options import Options
from .progress import RunProgress
from .recorder import Recorder
from .run_facts import RunFacts
from .run_header import RunHeader, contract_warnings, proof_notes, why_nothing
from .sequences.token_rows import Identity, SequenceInfo
from .training_steps import Ended, TrainingSteps


class Tracer:
    """Record every router decision of `model` into `store` while the `with` block runs.

        with moescope.Tracer(model, "run.duckdb", tokenizer=tokenizer):
            model(**inputs)

    At attach every router is proved on a few tokens (ModelError and its kinds if that fails; then nothing is written). Padding
    is left out by the attention mask. A diffusion pipeline is traced as what it is: `with Tracer(pipe, store): pipe(...)`; its
    denoiser is proved on what it is first called with. The store opens at any time; the run joins its file when the block ends.
    An exception inside the block closes the run as `interrupted` and goes on to the caller. A model without routers whose
    modules fire again and again in one forward (HRM) is taken with `activations=["dimensionality"]`. Of a model that
    Transformers spreads over processes each has a Tracer: the first one's rows are kept, and all must have seen the same.
    `writes`: a RunWriter of one's own, such as one that also tells its rows to somebody who watches.
    """

    def __init__(
        self,
        model: Any,
        store: str | Path,
        *,
        tokenizer: Any = None,
        name: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        options: Options | None = None,
        run: Mapping[str, Any] | None = None,
        replace: bool = False,
        writes: type[RunWriter] = RunWriter,
        **settings: Any,
    ) -> None:
        self._pipeline = Pipeline(model) if is_pipeline(model) else None
        self.model = unwrap(model) if self._pipeline is None else self._pipeline.model
        self.store, self.tokenizer, self.options = local(store), tokenizer, options or Options(**settings)
        self._facts, self._inputs = RunFacts(name, run), inputs
        self.sites: list[Site] = []
        self.proof = Proof([])
        self.run: int | None = None
        self._replace, self._continue, self._writes = replace, False, writes
        self._progress = RunProgress()
        self._writer: RunWriter | None = None
        self._infos: dict[str, list[SequenceInfo]] | None = None  # of the batch that is open

    def __enter__(self) -> "Tracer":
        if self._pipeline is None:
            self._begin()
        else:
            self._pipeline.open(self._first, self.denoising, self._inputs)
        return self

    def _begin(self) -> None:
        try:
            self._attach()
        except BaseException:
            if self._writer is not None:
                self._writer.release() if self._continue else self._writer.discard()
                self._writer = None
            raise

    def _first(self, inputs: Mapping[str, Any]) -> None:
        """What a pipeline calls its denoiser with is what it is proved on."""
        self._inputs = inputs
        self._begin()

    def _attach(self) -> None:
        heard = attached(self.model, self.options, self._inputs)
        self.sites, self.proof, self._together = heard.sites, heard.proof, heard.together
        if self._writer is None:
            self._writer = self._begun()
        self._progress.start(self._writer.part.progress.get("resume", {}))
        identity = Identity.of(self._writer, self.model, self.tokenizer, self.options.pictures)
        self._sink = Sink(self._writer, identity, self.options)
        self.steps = TrainingSteps(self.model, self.options, self._ended)
        structure = Structure(self.model, self.sites, heard.routers)
        self._recorder = Recorder(self.model, self.options, self._progress, structure, self.steps, self._sink.put)
        self._recorder.attach(self.sites, heard.repeated)
        self._recorder.infos = self._infos
        self._recorder.says = None if self._pipeline is None else self._pipeline.says
        if "resume" not in self._writer.part.progress:  # else an earlier commit has it
            rows, left_out = compared(self.sites)
            add_measures(self._writer, rows)
            self._facts.warnings += left_out

    def _begun(self) -> RunWriter:
        """The writer of a run that begins here."""
        return self._together.writer(self.store, self._header(), self._replace, self._writes)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
            if self._writer is None and kind is None:
                raise never_run(self._pipeline.pipe)
        if self._writer is None:  # its routers were refused when it ran
            return
        try:
            self._recorder.detach()
            with defer_interrupt():
                self.flush()
                self.steps.finish(kind is None)
                self._sink.finish()
                self._close(self._writer, "complete" if kind is None else "interrupted")
        finally:
            self._writer.release()

    def _close(self, writer: RunWriter, status: str) -> None:
        if status == "interrupted":
            writer.rollback()  # to the end of the last whole batch
            self._recorder.observers.sums.take_back("batch")
        else:
            self._together.compare(writer)
        if writer.next["forward"] and self._together.keeps:
            add_measures(writer, self._recorder.observers.measures({site.key: site.layer for site in self.sites}))
            self.run = writer.close(self._final(status), self._sink.written)
        else:
            writer.discard()
        if status == "complete":
            self.run = self._together.shared(self.run)
            if self.run is None:
                raise ModelError(self._recorder.refused or why_nothing(self.model, self._recorder.left_out.outside))

    def prove_on(self, inputs: Mapping[str, Any]) -> None:
        """Prove the routers on these, instead of on made-up tokens."""
        self._inputs = inputs

    def resume(self, writer: RunWriter) -> "Tracer":
        """Go on with a run that was cut off instead of beginning one."""
        self._writer, self._continue = writer, True
        return self

    @contextmanager
    def batch(
        self,
        infos: Sequence[SequenceInfo],
        progress: Mapping[str, Any] | None = None,
        decoder: Sequence[SequenceInfo] | None = None,
    ) -> Iterator[None]:
        """Say what the sequences of the next forwards are, in order (`decoder`: of the decoder's side, if it differs).

        `progress` is what the run can say of itself once they are stored.
        """
        self._infos = {"": list(infos), "decoder": list(decoder if decoder is not None else infos)}
        if self._writer is not None:  # else a pipeline has not called its denoiser yet
            self._recorder.infos, self._recorder.first = self._infos, self._progress.steps
        try:
            yield
            self.flush()
        except BaseException:
            if self._writer is not None:
                self._recorder.drop()  # of a batch that was broken off nothing is stored
            raise
        finally:
            self._infos = None
            if self._writer is not None:
                self._recorder.infos = None
        self._sink.put(Job([Forward([], {}, None, self._progress.progress(progress or {}))]))
        self._recorder.observers.sums.reach("batch")

    def generating(self) -> AbstractContextManager[None]:
        """Say that in forwards that go on with a cache the model made what is fed: for a loop of your own that samples."""
        return self._recorder.generating()

    def conditions(self, **told: Any) -> AbstractContextManager[None]:
        """Say what forwards inside are told beside their tokens: `with tracer.conditions(task="summarize", guidance="none"):`.

        A number or a word, or one for each sequence; stored in table `conditions`. What a model is given as an argument of its
        own (timestep, sigma, class_labels, guidance, ...) is stored without being said.
        """
        return self._recorder.conditions(told)

    def denoising(self) -> AbstractContextManager[None]:
        """Say that forwards inside denoise the same pictures, step after step, so that a patch is one token in all of them.

        For a sampling loop of your own; calls of a traced pipeline are known.
        """
        return self._recorder.denoising()

    def flush(self, settle: bool = False) -> None:
        """Hand over the small forwards that are still held; with `settle`, wait until they are rows."""
        self._recorder.flush()
        if settle:
            self._sink.settle()

    def step(self, number: int | None = None) -> None:
        """Training step `number` (else: the next) is over, and the forwards since the last call were its micro-batches: call it
        behind the optimizer's step, with `monitor=True`. InputError if numbers do not go up."""
        self.steps.ends(number)

    def _ended(self, ended: Ended) -> None:
        self.flush()
        self._sink.put(Job([Forward([], {}, None, self._recorder.progress(), ended=ended)]))
        self._recorder.observers.sums.reach("hand-over" if self._recorder.infos is not None else "batch")

    def note(self, sentences: Sequence[str]) -> None:
        """Add sentences to the run's warnings."""
        self._facts.warnings += sentences

    def tell(self, **columns: Any) -> None:
        """Say columns of `runs` that are known only when the run ends."""
        self._facts.tell(columns)

    def so_far(self) -> dict[str, Any]:
        """Counts and times up to now, for a progress bar."""
        count = self._writer.next if self._writer is not None else {}
        return {"tokens": count.get("token", 0), "forwards": count.get("forward", 0)} | self._progress.times()

    def health(self) -> dict[str, dict[str, float]]:
        """Measures of every router, by its path, at the last step or evaluation that is over; with `monitor=True`."""
        return self.latest()[1]

    def latest(self, part: str | None = None, settle: bool = True) -> tuple[int, dict[str, dict[str, float]]]:
        """(step, `health`) of a part, train or eval; without waiting for the writing thread unless told to `settle`."""
        if settle:
            self._sink.settle()
        return self._sink.rows.watch.latest(part)

    def _header(self) -> RunHeader:
        return self._facts.header(self.model, self.options, self.proof, self.sites)

    def _final(self, status: str) -> dict[str, Any]:
        noted = contract_warnings(self.sites, self._progress.fired) + self._recorder.notes() + self._sink.rows.notes()
        noted += proof_notes(self.proof) + self.proof.left_out + self._progress.complaint(self._sink.waited)
        return self._facts.final(status, noted, self._progress.times())
