"""Names of the field lead to what is there."""

from collections import Counter

import pytest

from macattr.methods.aliases import ALIASES, explain_alias
from macattr.methods.catalogue import METHODS, find_methods


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ig", "internal_influence .* and layer_ig"),
        ("Integrated Gradients", "internal_influence .* and layer_ig"),
        ("lig", "write layer_ig"),
        ("snip", "taylor is the same product"),
        ("GradCAM", "pixels or classes of an image, not layers"),
        ("grad-cam", "grad_x_activation"),
        ("layer_conductance", "write conductance"),
        ("ewc", "write fisher"),
        ("Hessian", "no second derivatives here: fisher"),
        ("wanda", "does not compare layers"),
        ("lora-ga", "chooses ranks or first values"),
        ("AdaLoRA", "changes the trained layers while training"),
        ("MAC", "did you mean mac"),
        ("kapa", "did you mean kappa"),
    ],
)
def test_a_name_of_the_field_is_answered_in_one_line(name, message):
    with pytest.raises(ValueError, match=rf"no method '{name}'; .*{message}") as refused:
        find_methods([name])
    assert "\n" not in str(refused.value)


def test_every_spelling_stands_once_is_plain_and_hides_no_method():
    spellings = [spelling for spellings in ALIASES for spelling in spellings]
    assert [spelling for spelling, count in Counter(spellings).items() if count > 1] == []
    assert all(spelling.isalnum() and spelling == spelling.lower() for spelling in spellings)
    assert not METHODS.keys() & set(spellings)


def test_every_hint_names_a_method():
    for spellings, hint in ALIASES.items():
        assert any(method in hint for method in METHODS), spellings
    assert explain_alias("nonsense") == ""
