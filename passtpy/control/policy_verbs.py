# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs about what the guest may reach: the policy, pins, questions to people."""

from passtpy.control.owners import Owners
from passtpy.control.verb import (
    Arguments,
    Code,
    ControlError,
    Json,
    Kind,
    Lines,
    Param,
    Reply,
    Value,
    Verb,
)

ANSWERS = ("allow", "deny")


def get_policy(owners: Owners, _: Arguments) -> Reply:
    """Answer `policy`."""
    return Value(owners.policy.describe())


def put_policy(owners: Owners, args: Arguments) -> Reply:
    """Answer `replace policy`."""
    files = args.get("files", {})
    for name, text in files.items():
        if not isinstance(text, str):
            raise ControlError(Code.BAD_REQUEST, f"{name} is no text", "files")
    return Value(owners.policy.replace(args["text"], files))


def list_pins(owners: Owners, _: Arguments) -> Reply:
    """Answer `pins`."""
    return Lines(owners.policy.pins())


def list_limits(owners: Owners, _: Arguments) -> Reply:
    """Answer `limits`."""
    return Lines(owners.policy.limits())


def list_questions(owners: Owners, _: Arguments) -> Reply:
    """Answer `questions`."""
    return Value({"questions": list(owners.policy.questions())})


def answer_question(owners: Owners, args: Arguments) -> Reply:
    """Answer `answer`."""
    allow = args["answer"] == "allow"
    told: Json = owners.policy.answer(args["id"], allow, args.get("remember", False))
    return Value(told)


POLICY_VERBS: tuple[Verb[Owners], ...] = (
    Verb(
        "policy",
        "GET",
        "/v1/policy",
        "Say what the guest may reach.",
        "Mode, default, the file, its rules with ids and hits.",
        get_policy,
    ),
    Verb(
        "replace-policy",
        "PUT",
        "/v1/policy",
        "Decide after another policy file, in one step: open flows that it refuses are"
        " closed. One that is wrong changes nothing.",
        "The new generation, and how many rules there are.",
        put_policy,
        (
            Param("text", Kind.TEXT, "the policy file", required=True),
            Param("files", Kind.OBJECT, "the files that its sets include, by name"),
        ),
    ),
    Verb(
        "pins",
        "GET",
        "/v1/policy/pins",
        "List which names the guest's addresses stand for.",
        "One JSON object a line for each address of a name, with the seconds it lasts.",
        list_pins,
        lines=True,
    ),
    Verb(
        "limits",
        "GET",
        "/v1/limits",
        "List limits of bytes and flows, and what was counted for them.",
        "One JSON object a line for each rule that has some; rule 0 stands for all"
        " flows. Pairs are towards the guest, and from it.",
        list_limits,
        lines=True,
    ),
    Verb(
        "questions",
        "GET",
        "/v1/policy/questions",
        "List the flows about which somebody is to be asked.",
        "Questions with their ids.",
        list_questions,
    ),
    Verb(
        "answer",
        "POST",
        "/v1/policy/questions/{id}",
        "Answer a question: let flows pass that wait for it, or refuse them.",
        "What the answer was about.",
        answer_question,
        (
            Param("id", Kind.INTEGER, "id of the question", required=True),
            Param("answer", Kind.TEXT, "the answer", required=True, choices=ANSWERS),
            Param(
                "remember",
                Kind.BOOLEAN,
                "as long as the daemon runs and the rule stays; else for what waits"
                " now, and tries again soon",
            ),
        ),
    ),
)
