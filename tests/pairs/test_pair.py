"""Ids of pairs and prompts: saved scores are joined by them."""

from simpo_workbench.pairs.pair import pair_id, prompt_key, prompt_text


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def test_pair_id_is_fixed_by_content_alone():
    # sha256sum of {"chosen":"Blue.","prompt":[{"content":"Sky?","role":"user"}],"rejected":"Green."}; a change cuts
    # saved scores off
    assert pair_id([user("Sky?")], "Blue.", "Green.") == "54e7ffc6b1066256"
    assert pair_id([{"content": "Sky?", "role": "user"}], "Blue.", "Green.") == "54e7ffc6b1066256"
    others = [
        ([user("Sky")], "Blue.", "Green."),
        ([user("Sky?")], "Green.", "Blue."),
        ([system("Sky?")], "Blue.", "Green."),
    ]
    assert len({pair_id(*other) for other in others} | {"54e7ffc6b1066256"}) == 4


def test_prompt_key_tells_prompts_apart_by_role_and_text():
    assert prompt_key([user("a")]) == prompt_key(({"content": "a", "role": "user"},))
    assert len({prompt_key(prompt) for prompt in ([user("a")], [system("a")], [user("a"), user("a")])}) == 3


def test_prompt_text_is_bare_for_one_question_and_a_transcript_else():
    assert prompt_text([user("Sky?")]) == "Sky?"
    assert (
        prompt_text([system("Be short."), user("Sky?"), assistant("Blue."), user("At night?")])
        == "System: Be short.\n\nUser: Sky?\n\nAssistant: Blue.\n\nUser: At night?"
    )


def test_tools_calls_and_reasoning_are_part_of_the_content_and_null_keys_are_not():
    plain = pair_id([user("Sky?")], "Blue.", "Green.")
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    call = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "look"}}]}
    thought = {"role": "assistant", "content": "Blue.", "reasoning_content": "It is day."}
    others = {
        pair_id([user("Sky?")], "Blue.", "Green.", tools=(tool,)),
        pair_id([user("Sky?"), call, user("And?")], "Blue.", "Green."),
        pair_id([user("Sky?"), assistant(""), user("And?")], "Blue.", "Green."),
        pair_id([user("Sky?")], "Blue.", "Green.", chosen_turn=thought),
        pair_id([user("Sky?")], "Blue.", "Green.", rejected_turn=thought),
    }
    assert len(others | {plain}) == 6
    assert pair_id([{**user("Sky?"), "tool_calls": None}], "Blue.", "Green.", tools=()) == plain
