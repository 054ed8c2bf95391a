"""What the words of a column's name say of a judgement: which answer it names, and whether more of it is better.

A name whose words leave two meanings is never read: half of the pairs would be turned round. Standard library only.
"""

import functools
import re

BETTER, UNCLEAR, WORSE = 1, 0, -1
#: Words of columns that say which answer is better, the surest first.
LABEL_WORDS = (
    "label", "labels", "preference", "preferences", "winner", "winners", "better", "best", "preferred", "choice",
    "choices", "verdict", "verdicts", "judgement", "judgment", "judgements", "judgments", "vote", "votes", "win",
    "wins", "selected", "prefer", "prefers", "annotation", "annotations", "annotator", "annotators", "chosen", "safer",
    "favored", "favoured", "favor", "favour", "favorable", "favourable", "favorite", "favourite", "superior", "liked",
    "stronger",
)  # fmt: skip
#: Words that name the worse answer without another word beside them.
WORSE_WORDS = (
    "worse", "worst", "loser", "losers", "loses", "losing", "rejected", "inferior", "weaker", "weakest", "poorer",
    "poorest", "disliked", "unsafer", "lost",
)  # fmt: skip
#: Words that turn a label round only beside a word of LABEL_WORDS, such as lost_vote and bad_choice.
_TURNING = frozenset(
    {
        "not", "non", "un", "never", "isnt", "wasnt", "less", "least", "lesser", "fewer", "fewest", "dis", "anti",
        "bad", "wrong", "incorrect", "lose", "losses", "negative", "neg", "lower", "lowest", "poor", "failed",
        "discarded", "eliminated", "defeated", "beaten", "undesirable", "undesired", "unwanted", "reject", "rejects",
        "rejection", "refused", "unsafe", "harmful", "excluded", "dropped", "bottom", "minority", "last", "weak",
    }
)  # fmt: skip
#: Words that leave a label two meanings: it was changed, it belongs to somebody else, or it compares with something.
_INVERTED = frozenset(
    {
        "inverse", "inverted", "inv", "reverse", "reversed", "rev", "flipped", "flip", "swapped", "swap", "opposite",
        "shuffled", "other", "alternative", "alternate", "counter", "opponent", "runner", "third", "than", "to",
        "noisy",
        "random", "corrupted", "wrongly", "adversarial", "fake",
    }
)  # fmt: skip
_SECOND_BEST = re.compile(r"second_(?:best|choice)|second_most_")
_PREFIXED = re.compile(r"(?:un|dis|non|de|mis)(\w+?)(?:able)?")
#: Words of columns that say that no answer is better.
_TIE_WORDS = frozenset({"tie", "ties", "tied", "draw", "draws", "no", "neither", "both", "equal"})
#: Words of columns that are about a judgement and are none: who gave it, how sure or how strong it is, and why.
_ABOUT_LABELS = frozenset(
    {
        "strength", "confidence", "confident", "count", "num", "number", "margin", "reason", "reasons", "rationale",
        "explanation", "comment", "comments", "time", "type", "source", "agreement", "certainty", "mislabel",
        "mislabeled",
    }
)  # fmt: skip
#: "best_score" is the score of the best answer, "preference_score" a label with numbers.
_MEASURES = frozenset({"score", "scores", "rating", "ratings", "reward", "rewards"})
_OF_SCALES = frozenset({"label", "labels", "preference", "preferences", "judgement", "judgment", "verdict"})
_JUDGES = frozenset({"annotator", "annotators"})
INDEX_WORDS = frozenset({"index", "idx", "id"})
YES_WORDS = frozenset(
    {
        "better", "best", "win", "wins", "won", "winner", "preferred", "prefer", "prefers", "chosen", "selected",
        "good", "favored", "favoured", "superior", "liked", *WORSE_WORDS,
    }
)  # fmt: skip

_SCORES = frozenset(
    {
        "score", "scores", "rating", "ratings", "reward", "rewards", "votes", "upvotes", "points", "winner", "wins",
        "win", "likes", "quality", "helpfulness", "grade", "grades",
    }
)  # fmt: skip
_RANKS = frozenset({"rank", "ranks", "ranking"})
#: Words that may stand beside a word of _SCORES and leave more of it the better.
_QUALIFIERS = frozenset(
    {
        "overall", "total", "sum", "mean", "average", "avg", "median", "final", "raw", "normalized", "normalised",
        "weighted", "aggregate", "aggregated", "global", "main", "human", "user", "crowd", "expert", "annotator",
        "annotators", "labeler", "labeller", "judge", "judges", "critic", "evaluator", "ai", "llm", "model", "models",
        "rm", "prm", "orm", "pm", "gpt", "chatgpt", "openai", "claude", "gemini", "llama", "qwen", "deepseek",
        "mistral", "skywork", "armo", "armorm", "internlm", "nemotron", "ultrarm", "starling", "pairrm", "eurus",
        "qrm", "athene", "tulu", "pickscore", "turbo", "mini", "preference", "preferences", "the", "of", "is", "for",
        "in", "and", "helpful", "helpfulness", "harmless", "harmlessness", "honest", "honesty", "truthful",
        "truthfulness", "correct", "correctness", "accuracy", "relevance", "coherence", "fluency", "completeness",
        "clarity", "quality", "faithfulness", "factuality", "instruction", "following", "adherence", "safety", "safe",
        "satisfaction", "usefulness", "depth", "groundedness", "informativeness", "consistency", "preferred", "good",
        "pass", "passed", "bleu", "rouge", "bertscore", "bleurt", "comet", "v", "fine", "grained", "answer", "response",
        "output", "completion", "reply", "generation", "candidate", "summary", "text", "conversation", "dialogue",
        "message", "solution", "label", "elo", "net", "up", "upvote",
    }
)  # fmt: skip


#: A 1 or a yes for each side, such as winner_a and winner_b, chosen_1 and chosen_2.
_MARKS = frozenset({"winner", "better", "best", "preferred", "chosen", "selected", "won", "win", *WORSE_WORDS})


@functools.lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """The words of a column's name in small letters; a change to a capital or a digit begins a word."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z0-9])", "_", str(name))
    return tuple(word for word in re.split(r"[^a-z0-9]+", name.lower()) if word)


@functools.lru_cache(maxsize=4096)
def label_rank(name: str) -> int | None:
    """The place of a label column among all, the surest first; None for a column that says of no answer it is better.

    Columns that name the worse answer come last.
    """
    words = words_of(name)
    if _TIE_WORDS & set(words) or (_MEASURES & set(words) and not _OF_SCALES & set(words)):
        return None
    for place, word in enumerate(LABEL_WORDS):
        if word in words:
            return place + (len(LABEL_WORDS) if direction_of(name) != BETTER else 0)
    return 2 * len(LABEL_WORDS) if any(map(_names_the_worse, words)) else None


@functools.lru_cache(maxsize=4096)
def direction_of(name: str) -> int:
    """BETTER where a label names the better answer, WORSE where it names the worse one (not_preferred, loser), else
    UNCLEAR (not_worse, flipped_label).
    """
    words = words_of(name)
    turns = sum(word in _TURNING or _names_the_worse(word) for word in words)
    if turns > 1 or _INVERTED & set(words) or _SECOND_BEST.search("_".join(words)):
        return UNCLEAR
    return WORSE if turns else BETTER


def _names_the_worse(word):
    prefixed = _PREFIXED.fullmatch(word)
    return word in WORSE_WORDS or (prefixed is not None and prefixed[1] in LABEL_WORDS)


def is_about_a_label(name: str) -> bool:
    """Whether a column names who judged, or says something of a judgement, such as annotator_id or num_votes."""
    words = words_of(name)
    judged = [word for word in words if word in LABEL_WORDS]
    is_an_id = INDEX_WORDS & set(words) and not YES_WORDS & set(words)
    return bool(_ABOUT_LABELS & set(words) or is_an_id or (judged and set(judged) <= _JUDGES))


def merit_of(words) -> int | None:
    """BETTER where more of a measure is better, WORSE for ranks, UNCLEAR for another score; None for no score.

    words: of a column's name, without those that tell the sides apart ("*"). A word that is not known, such as penalty
    or spam, may turn a score round.
    """
    words = [word for word in words if word != "*" and not word.isdigit()]
    if words and is_mark(words):
        return WORSE if any(map(_names_the_worse, words)) else BETTER
    if words and set(words) <= _RANKS | _QUALIFIERS and _RANKS & set(words):
        return WORSE
    if set(words) & _SCORES:
        return BETTER if set(words) <= _SCORES | _QUALIFIERS else UNCLEAR
    return UNCLEAR if words and (set(words) & _RANKS or words[-1].endswith("votes")) else None


def is_mark(words) -> bool:
    """Whether a column of one side holds 1 or 0, by its words."""
    words = set(words) - {"*"}
    return bool(words & _MARKS) and words <= _MARKS | _QUALIFIERS
