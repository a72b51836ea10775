"""The columns of figures, and what they say."""

KEYS = ["stack", "layer", "router", "expert", "subset"]
WHOLE = ("layer", "router", "expert", "n", "units")
NUMBERS = ["value", "chance", "null_mean", "p", "q", "ci_low", "ci_high", "n", "units"]
COLUMNS = ["name", "estimator", *KEYS, *NUMBERS, "p_from", "tests", "families", "null", "source"]
WORDS = {
    "name": "what is measured, with its unit",
    "estimator": "which form of it",
    "stack": "decoder | encoder | vision",
    "layer": "the layer's own number",
    "router": "routers.router",
    "expert": "expert, where the figure is about one",
    "subset": "of what, as kind=label; empty = everything",
    "value": "the figure",
    "chance": "what chance gives by the definition alone",
    "null_mean": "mean of the figure under the null",
    "p": "share of the null at least as far out; never below what `p_from` can give",
    "q": "p after Benjamini-Hochberg over the `tests` of its family (mostly: of this name and estimator), times `families`",
    "ci_low": "95 % bootstrap interval over documents",
    "ci_high": "95 % bootstrap interval over documents",
    "p_from": "how p was had from the null: a count of so many draws, or a fitted tail by its name",
    "tests": "tests of the family that q was adjusted over",
    "families": "families of the answer, by whose number q was multiplied; those that hold the very same p count once",
    "n": "tokens, decisions or assignments behind it",
    "units": "documents (or images) behind it",
    "null": "what was permuted and what was held constant",
    "source": "where the definition is from",
}
