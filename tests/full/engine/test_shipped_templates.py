"""Every chat template that TRL ships, over conversations of all kinds: as rendered, or the report says why not."""

import pytest
import rendered_by_template as rendered

from simpo_workbench.base.errors import WorkbenchError

#: Templates for models with images: they take contents as parts, and the encoder refuses them in words.
OF_PARTS = {"idefics3", "idefics3_training", "llava_next", "llava_next_training", "smolvlm", "smolvlm_training"}
#: Conversations that every template renders as it stands; other outcomes are in NOT_EQUAL.
ORDINARY = ("plain", "several turns", "system turn", "system turn, several turns", "empty system turn")


@pytest.mark.parametrize("path", rendered.SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_template_is_scored_as_it_renders_or_the_report_says_why(path):
    tokenizer = rendered.tokenizer_for(path.read_text(encoding="utf-8"))
    if path.stem in OF_PARTS:
        with pytest.raises(WorkbenchError):
            rendered.encoder_for(tokenizer)
        return
    encoder = rendered.encoder_for(tokenizer)
    outcomes = {name: rendered.outcome(encoder, rendered.pair_of(row)) for name, row in rendered.CONVERSATIONS.items()}
    assert not {name: said for name, said in outcomes.items() if said.startswith("WRONG")}
    without_system_turn = path.stem in ("gemma", "gemma_training")
    for name in ORDINARY:
        assert outcomes[name] == "equal" or (without_system_turn and name.startswith("system turn")), outcomes[name]
