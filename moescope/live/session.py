"""One prompt through a model under the Tracer: what it writes is told as it comes, and the run lies aside until it is kept."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..inputs import Dataset, read
from ..interventions import Edit, intervene, overrides
from ..store.write.many.moved import Aside
from ..tracer import Options, Tracer
from ..tracer.data.batching import Reached
from ..tracer.data.feeding import pad_id, run_batch
from ..tracer.data.media_feeding import to_prove_on
from ..tracer.data.windows import Window, context, decoder_info, windows
from ..tracer.going_on import origin
from ..weights import home
from .asked import MOST_PROMPT, Asked
from .changes import edits_of
from .command import command_of
from .generation import Stop, Watch, log_probabilities
from .listening import Heard, Row
from .ready import Ready

Tell = Callable[[Row], object]
SEED = 0  # as of `moescope trace`


@dataclass(eq=False)
class Session:
    """One request, told to `tell` in events; its run goes beside `store`, which nobody else looks at."""

    ready: Ready
    asked: Asked
    store: Path
    tell: Tell
    stop: Stop
    heard: Heard

    def run(self) -> Aside:
        """Everything; gives the writer of the run. Errors of moescope, in one sentence, for what cannot be done."""
        ready, asked = self.ready, self.asked
        edits = edits_of(ready.sites, asked.edits)
        if edits and ready.loaded.pipe is not None:
            raise InputError(f"{ready.loaded.name} is a pipeline, whose experts are not changed here; ask without changes")
        data = read(asked.data(ready.loaded.reads == "image"), pad_id=pad_id(ready.loaded))
        (window,) = [self.window(data)]
        torch.set_num_threads(ready.threads)
        tracer = self.tracer(data, edits)
        if (inputs := to_prove_on(ready.loaded, [window], pad_id(ready.loaded) or 0)) is not None:
            tracer.prove_on(inputs)
        with tracer:
            assert self.heard.writer is not None or ready.loaded.pipe is not None
            self.tell(
                {"event": "begin", "routers": [] if self.heard.writer is None else ready.told(self.heard.writer.part.head)}
            )
            with self.changed(edits):
                chosen = self._through(tracer, window)
            why = self.stop.why or ("ended" if chosen < asked.tokens and ready.generates else "done")
            command = command_of(asked, chosen if self.stop.why else asked.tokens)
            tracer.tell(command=command)
        with self.changed(edits):
            scores = self.scored(window)
        self.tell({"event": "end", "why": why, "scores": scores, "command": command})
        assert self.heard.writer is not None
        return self.heard.writer

    def window(self, data: Dataset) -> Window:
        """The one row that runs. InputError where the prompt does not fit."""
        loaded, tokens = self.ready.loaded, self.asked.tokens if self.ready.generates else 0
        room = min(context(loaded) - (0 if self.ready.encodes else tokens), MOST_PROMPT)
        if room < 1:
            raise InputError(
                f"{loaded.name} takes {context(loaded)} tokens at once, so {tokens} leave no room for a prompt: ask for fewer"
            )
        found = list(windows(loaded, data, None, SEED, generate=tokens > 0))
        if len(found) != 1 or len(found[0].ids or ()) > room:
            count = sum(len(w.ids or ()) for w in found)
            more = f" with the {tokens} that are to follow" if tokens and not self.ready.encodes else ""
            raise InputError(f"the prompt has {count} tokens, and {loaded.name} takes {room} of it{more}: shorten it")
        return found[0]

    def tracer(self, data: Dataset, edits: list[Edit]) -> Tracer:
        """As `moescope trace --logits 1` has it; the run is aside."""
        loaded = self.ready.loaded
        run = {"name": self.asked.name or None, "seed": SEED, **origin(loaded, data)}
        run["overrides"] = self.ready.overrides | (overrides(*edits) if edits else {})
        model = loaded.pipe or loaded.model
        options = Options(logits=1.0, hold=1, commit_seconds=1e9)
        return Tracer(model, self.store, tokenizer=loaded.tokenizer, run=run, options=options, writes=self.heard.writes())

    def changed(self, edits: list[Edit]) -> AbstractContextManager[Any]:
        """The model under the edits."""
        return intervene(self.ready.loaded.model, *edits, sites=self.ready.sites) if edits else nullcontext()

    def _through(self, tracer: Tracer, window: Window) -> int:
        """The forwards, each told once it is recorded; gives how many tokens were chosen."""
        loaded, generate = self.ready.loaded, self.asked.tokens if self.ready.generates else 0

        def recorded(more: Row) -> None:
            tracer.flush(settle=True)
            if (rows := self.heard.take()) is not None:
                self.tell({"event": "tokens", **rows, "next": more})
            elif more:
                self.tell({"event": "next", "next": more})

        watch = Watch(loaded.tokenizer, recorded, self.stop)
        with ExitStack() as stack:
            output: list[Any] = []
            if not generate:
                stack.callback(loaded.model.register_forward_hook(lambda _, __, out: output.append(out)).remove)
            infos, decoder = [window.info], [decoder_info(window, generate > 0)]
            stack.enter_context(tracer.batch(infos, asdict(Reached(1, 1, 1, 1)), decoder))
            stack.enter_context(tracer.denoising() if loaded.times else nullcontext())
            run_batch(loaded, [window], generate, {}, watch.arguments() if generate else None)
        recorded(self.classes(output))
        return watch.chosen

    def classes(self, output: list[Any]) -> Row:
        """What a model without words says: its most probable classes."""
        logits: Any = getattr(output[-1], "logits", None) if output else None
        if not torch.is_tensor(logits) or logits.dim() != 2:
            return {}
        names = getattr(getattr(self.ready.loaded.model, "config", None), "id2label", None) or {}
        values, where = torch.log_softmax(logits[0].float(), -1).topk(min(8, logits.shape[-1]))
        return {"classes": [[i, str(names.get(i, i)), round(v, 5)] for i, v in zip(where.tolist(), values.tolist())]}

    def scored(self, window: Window) -> list[float | None] | None:
        """Log-probabilities of the text that is asked for, under the same edits; None where none is, or pictures are read."""
        ids = list(self.asked.score)
        if len(ids) < 2 or not self.ready.generates or window.asked is not None or window.ids is None or self.stop.asked:
            return None
        most = self.ready.loaded.model.get_input_embeddings().num_embeddings  # type: ignore[operator,union-attr]
        if min(ids) < 0 or max(ids) >= most or len(ids) > context(self.ready.loaded):
            raise InputError(
                f"the text to score has ids that {self.ready.loaded.name} has not, or too many: send ids from 0 to {most - 1}"
            )
        device = home(self.ready.loaded.model)
        row = {"input_ids": torch.tensor([window.ids], device=device)}
        row["attention_mask"] = torch.ones_like(row["input_ids"])
        return log_probabilities(self.ready.loaded.model, row, ids, self.ready.encodes)
