"""Features in human words: a table of name patterns that covers every name `features/catalog.py` can give.

A phrase speaks to the user about one candidate and says the row's value: "viewed 3 times in the last hour", "you
never touched it before". Names are told apart by their rule alone, so a model can be explained without the
configuration that it was trained under.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple

Phrase = Callable[[float], str]

WHEN = {
    "5m": "in the last 5 minutes",
    "1h": "in the last hour",
    "24h": "in the last 24 hours",
    "7d": "in the last 7 days",
    "total": "so far",
}
HALF_LIVES = {"1d": "every day", "7d": "every week", "30d": "every month"}
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
SPANS_S = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
FORMS = ("rank", "z", "to_min", "to_median")

# The actions that people log: what the user did, what was done to the item. Others are quoted as they are called.
VERBS = {
    "add": ("added", "added"), "book": ("booked", "booked"), "bookmark": ("bookmarked", "bookmarked"),
    "buy": ("bought", "bought"), "cancel": ("cancelled", "cancelled"), "click": ("clicked", "clicked"),
    "cart": ("put into the cart", "put into the cart"), "comment": ("commented", "commented"),
    "dislike": ("disliked", "disliked"), "download": ("downloaded", "downloaded"), "follow": ("followed", "followed"),
    "hide": ("hid", "hidden"), "like": ("liked", "liked"), "listen": ("listened to", "listened to"),
    "open": ("opened", "opened"), "order": ("ordered", "ordered"), "play": ("played", "played"),
    "purchase": ("purchased", "purchased"), "rate": ("rated", "rated"), "read": ("read", "read"),
    "save": ("saved", "saved"), "see": ("saw", "seen"), "share": ("shared", "shared"),
    "skip": ("skipped", "skipped"), "view": ("viewed", "viewed"), "visit": ("visited", "visited"),
    "watch": ("watched", "watched"), "impression": ("were shown", "shown"),
}  # fmt: skip

# What may follow a verb in an action's name, as in add_to_cart: "added it to cart", but never "viewed it product".
PREPOSITIONS = frozenset({"again", "for", "from", "in", "into", "of", "off", "on", "onto", "out", "to", "up", "with"})


class Rule(NamedTuple):
    """A pattern of names and what to say: of a value, of 0 (empty: as of any), of none (empty: "not known").

    In the texts {v:...} is the value and {0:...}, {1:...} are the pattern's groups, each said as its format asks.
    """

    pattern: str
    text: str
    zero: str = ""
    absent: str = ""


WINDOW = "(5m|1h|24h|7d|total)"
UNTOUCHED = "you never touched it before"
UNCOMPARED = "its {0:words} cannot be compared with yours"
NO_SESSION = "no item looked at in this session"
NEWCOMER = "nothing known of you yet"

RULES = (
    Rule(f"item_(.+)_count_{WINDOW}", "{0:done} {v:times} {1:when}", "not {0:done} {1:when}"),
    Rule(
        "item_(.+)_decayed_(1d|7d|30d)",
        "{0:done} {v:times} lately, what is older halved {1:half}",
        "not {0:done} lately",
    ),
    Rule(
        "item_(.+)_rate_by_(.+)",
        "things of its {1:words} are {0:done} about {v:times} per impression",
        "things of its {1:words} are not {0:done}",
        "nothing of its {1:words} was shown yet",
    ),
    Rule(
        f"item_(.+)_rate_{WINDOW}",
        "{0:done} about {v:times} per impression {1:when}",
        "not {0:done} {1:when}",
        "nothing was shown yet",
    ),
    Rule("item_age_s", "first heard of {v:span} ago", absent="its age is not known"),
    Rule("item_known", "in the catalogue", "not in the catalogue"),
    Rule(
        f"user_impression_lists_{WINDOW}", "you were shown lists {v:times} {0:when}", "you were shown no list {0:when}"
    ),
    Rule("user_item_recency_s", "you last touched it {v:span} ago", absent=UNTOUCHED),
    Rule("user_item_recency_rank", "number {v:number} of what you touched, the newest first", absent=UNTOUCHED),
    Rule(
        "user_item_session_recency_rank",
        "number {v:number} of what you touched in this session, the newest first",
        absent="not touched in this session",
    ),
    Rule("user_item_last_action", "what you last did with it", UNTOUCHED),
    Rule("user_item_weight", "your interest in it of the last days: {v:number}", "no interest in it in the last days"),
    Rule("user_item_session_count", "touched {v:times} in this session", "not touched in this session"),
    Rule("user_item_session_share", "{v:percent} of your session was about it", "not touched in this session"),
    Rule("user_item_touched_last", "the item that you touched last", "not the item that you touched last"),
    Rule("user_item_run_length", "touched {v:times} in a row in this session", "not touched in this session"),
    Rule("user_item_dwell_s", "you looked at it for {v:span}", "you never looked at it for long"),
    Rule("user_item_bought", "you bought it before", "you have not bought it"),
    Rule("user_item_(.+)_count", "you {0:did_it} {v:times} before", "you never {0:did_it}"),
    Rule("user_session_length", "you acted {v:times} in this session", "no session goes on"),
    Rule("user_session_items", "items in your session: {v:number}", "no session goes on"),
    Rule("user_session_age_s", "your session began {v:span} ago", absent="no session goes on"),
    Rule("user_session_dwell_mean_s", "you look at an item for {v:span} in this session", absent=NO_SESSION),
    Rule("user_session_dwell_last_s", "you looked at the item before for {v:span}", absent=NO_SESSION),
    Rule("user_sessions", "your sessions so far: {v:number}", NEWCOMER),
    Rule("user_repeat_share", "{v:percent} of what you do is with items you know", absent=NEWCOMER),
    Rule("user_recency_s", "you were last here {v:span} ago", absent=NEWCOMER),
    Rule("user_(.+)_recency_s", "you last {0:did} {v:span} ago", absent="you never {0:did}"),
    Rule(f"user_(.+)_count_{WINDOW}", "you {0:did} {v:times} {1:when}", "you never {0:did} {1:when}"),
    Rule("shown_(.+)_less_mean_touched", "its {0:words} {v:off} that of what you looked at", absent=UNCOMPARED),
    Rule("shown_(.+)_less_last_touched", "its {0:words} {v:off} that of the item before", absent=UNCOMPARED),
    Rule("shown_(.+)", "shown with a {0:words} of {v:number}"),
    Rule("context_(.+)", "the {0:words} of this request is {v:number}"),
    Rule("now_hour", "the hour of day: {v:number} UTC"),
    Rule("now_weekday", "the day of the week: {v:weekday}"),
    Rule("source_session_neighbours", "picked in sessions like yours", "not picked in sessions like yours"),
    Rule("source_co_visited", "co-visited with what you looked at", "not co-visited with what you looked at"),
    Rule("source_history", "in your own history", "not in your own history"),
    Rule("source_affinity", "popular among what you like", "not popular among what you like"),
    Rule("source_trending", "trending now", "not trending now"),
    Rule("source_new", "new in the catalogue", "not new in the catalogue"),
    Rule("source_(.+)", 'found by "{0:words}"', 'not found by "{0:words}"'),
    Rule("position", "in place {v:place} of the list", absent="its place in the list is not known"),
    Rule("(.+)_less_mean_touched", "its {0:words} {v:off} that of what you looked at", absent=UNCOMPARED),
    Rule("(.+)_less_last_touched", "its {0:words} {v:off} that of the item before", absent=UNCOMPARED),
    Rule("(.+)_affinity", "your taste in {0:words}, matched by {v:percent}", "not your taste in {0:words}"),
    Rule("(.+)_cosine", "{v:percent} like what you look at in {0:words}", "unlike what you look at in {0:words}"),
    Rule("(.+)_last_overlap", "{v:percent} of its {0:words} in common with the item before"),
    Rule("(.+)_overlap", "{v:percent} of its {0:words} in common with what you looked at"),
    Rule("(.+)", "its {0:words} is {v:number}", absent="its {0:words} is not known"),
)


def phrase(name: str, *, is_category: bool = False) -> Phrase:
    """What to say of a feature's value; of a request's category only which one it is, since its number is a hash.

    Not for the list-relative forms: `relation` says them beside the feature that they are a form of.

    >>> phrase("item_click_count_1h")(3), phrase("user_item_recency_s")(90), phrase("price")(12.5)
    ('clicked 3 times in the last hour', 'you last touched it 2 minutes ago', 'its price is 12.5')
    """
    rule, groups = next((rule, match.groups()) for rule in RULES if (match := re.fullmatch(rule.pattern, name)))
    if is_category and name.startswith("context_"):
        rule = Rule(rule.pattern, "the {0:words} of this request")
    parts = [_Part(group) for group in groups]
    absent = (rule.absent or f"{_words(name)}: not known").format(*parts)

    def say(value: float) -> str:
        if math.isnan(value):
            return absent
        return (rule.zero if value == 0 and rule.zero else rule.text).format(*parts, v=_Value(value))

    return say


def relation(form: str, value: float) -> str:
    """How the candidate stands among the others of its list, by one of `FORMS`.

    >>> relation("z", 2.13), relation("rank", 3)
    ('2.1 standard deviations above this list', 'place 3 from the lowest in this list')
    >>> relation("to_min", 1.5)
    '1.5 times the lowest of this list'
    """
    if form == "z":
        return f"{abs(value):.1f} standard deviations {'below' if value < 0 else 'above'} this list"
    if form == "rank":
        return f"place {number(value)} from the lowest in this list"
    return f"{number(value)} times the {'lowest' if form == 'to_min' else 'middle'} of this list"


def number(value: float) -> str:
    """Three digits, more before the point where there are more.

    >>> number(0.12345), number(12_345), number(1e30)
    ('0.123', '12,345', '1e+30')
    """
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


def times(value: float) -> str:
    """How often.

    >>> times(1), times(3), times(2.5)
    ('once', '3 times', '2.5 times')
    """
    return "once" if value == 1 else f"{number(value)} times"


def percent(value: float) -> str:
    """A share.

    >>> percent(0.256), percent(0.0012)
    ('25.6 %', '0.12 %')
    """
    return f"{number(100 * value)} %"


def span(seconds: float) -> str:
    """A time in its greatest whole unit.

    >>> span(0.2), span(90), span(86_400)
    ('less than a second', '2 minutes', '1 day')
    """
    size, unit = next(((size, unit) for size, unit in SPANS_S if seconds >= size), (0, ""))
    if not size:
        return "less than a second"
    many = number(round(seconds / size) if math.isfinite(seconds) else seconds)
    return f"{many} {unit}" if many == "1" else f"{many} {unit}s"


def off(value: float) -> str:
    """How far a number lies from another.

    >>> off(2.5), off(-1), off(0)
    ('is 2.5 above', 'is 1 below', 'equals')
    """
    return f"is {number(abs(value))} {'above' if value > 0 else 'below'}" if value else "equals"


def _weekday(value: float) -> str:
    return WEEKDAYS[int(value) % 7] if math.isfinite(value) else number(value)


def _words(slug: str) -> str:
    return slug.replace("_", " ")


def _done(action: str) -> str:
    """What was done to the item: `add_to_cart` is "added to cart"; an unknown verb is quoted."""
    verb, rest = _verb(action)
    return f"{VERBS[verb][1]}{rest}" if verb else f'"{_words(action)}"'


def _did(action: str, what: str = "") -> str:
    """What the user did."""
    verb, rest = _verb(action)
    if verb:
        return f"{VERBS[verb][0]}{what}{rest}"
    return f'did "{_words(action)}"{" with" if what else ""}{what}'


def _verb(action: str) -> tuple[str, str]:
    """A known verb at the beginning of an action's name (empty: none, or a noun stands behind it), and what follows it."""
    verb, _, rest = action.partition("_")
    if verb not in VERBS or (rest and rest.partition("_")[0] not in PREPOSITIONS):
        return "", ""
    return verb, f" {_words(rest)}" if rest else ""


_SAY_VALUE: dict[str, Callable[[float], str]] = {
    "number": number,
    "times": times,
    "percent": percent,
    "span": span,
    "off": off,
    "weekday": _weekday,
    "place": lambda value: number(value + 1),
}
_SAY_PART: dict[str, Callable[[str], str]] = {
    "words": _words,
    "did": _did,
    "did_it": lambda action: _did(action, " it"),
    "done": _done,
    "when": WHEN.__getitem__,
    "half": HALF_LIVES.__getitem__,
}


class _Value(float):
    """A value that `str.format` says as the table asks."""

    def __format__(self, how: str) -> str:
        return _SAY_VALUE[how](float(self))


class _Part(str):
    """A part of a name that `str.format` says as the table asks."""

    __slots__ = ()

    def __format__(self, how: str) -> str:
        return _SAY_PART[how](str(self))
