"""Modules that only moescope hooks are called straight; whatever else hangs on them is called as torch calls it."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from moescope import hooks


def _hooked() -> tuple[nn.Module, list[Any], Any]:
    module, heard = nn.Linear(2, 2), list[Any]()
    return module, heard, hooks.after(module, lambda *call: heard.append(len(call)), kwargs=True, first=True)


def test_a_call_is_heard_once_and_the_module_is_left_as_it_was() -> None:
    module, heard, handle = _hooked()
    before = {"training", *vars(nn.Linear(2, 2))}
    expected = nn.functional.linear(torch.ones(2), module.weight, module.bias)
    assert torch.equal(module(torch.ones(2)), expected)
    assert heard == [4]
    module.forward(torch.ones(2))
    assert heard == [4]
    handle.remove()
    assert set(vars(module)) == before
    module(torch.ones(2))
    assert heard == [4]


def test_hooks_of_others_run_while_they_hang_there() -> None:
    module, heard, handle = _hooked()
    plain = module(torch.ones(2))
    for register in (module.register_forward_hook, nn.modules.module.register_module_forward_hook):
        other = register(lambda _, __, output: output + 1)
        assert torch.equal(module(torch.ones(2)), plain + 1)
        other.remove()
        assert torch.equal(module(torch.ones(2)), plain)
    doubled = module.register_forward_pre_hook(lambda _, args: (args[0] * 2,))
    assert not torch.equal(module(torch.ones(2)), plain)
    doubled.remove()
    assert heard == [4] * 6
    gradients = list[Any]()
    module.register_full_backward_hook(lambda *call: gradients.append(call))
    module(torch.ones(2, requires_grad=True)).sum().backward()
    assert len(gradients) == 1
    handle.remove()


def test_hooks_that_somebody_cleared_hear_nothing_more() -> None:
    module, heard, handle = _hooked()
    module(torch.ones(2))
    module._forward_hooks.clear()
    module.register_forward_hook(lambda _, __, output: output * 0)
    assert torch.equal(module(torch.ones(2)), torch.zeros(2))
    assert heard == [4]
    handle.remove()


def test_what_a_hook_of_ours_returns_is_what_the_next_one_hears() -> None:
    module, heard, handle = _hooked()
    edit = hooks.after(module, lambda _, __, output: torch.zeros_like(output), first=True)
    last = hooks.after(module, lambda _, __, output: heard.append(output.tolist()), last=True)
    assert module(torch.ones(2)).tolist() == [0.0, 0.0]
    assert heard == [4, [0.0, 0.0]]
    for own in (handle, edit, last):
        own.remove()


def test_exceptions_and_other_forwards_come_through() -> None:
    module, heard, handle = _hooked()
    with pytest.raises(RuntimeError):
        module(torch.ones(3))
    module.forward = lambda values: values * 3  # type: ignore[method-assign]
    assert module(torch.ones(2)).tolist() == [3.0, 3.0]
    assert heard == [4]
    handle.remove()


def test_copies_and_replicas_are_called_as_what_they_are() -> None:
    module, heard, handle = _hooked()
    other, replica = copy.deepcopy(module), module._replicate_for_data_parallel()  # type: ignore[operator]
    with torch.no_grad():
        other.weight.zero_()
        other.bias.zero_()
    replica.weight, replica.bias = other.weight, other.bias
    assert other(torch.ones(2)).tolist() == [0.0, 0.0]
    assert heard == []
    assert replica(torch.ones(2)).tolist() == [0.0, 0.0]
    assert heard == [4]  # a replica is no copy
    assert not {"_call_impl", "_replicate_for_data_parallel"} & (vars(other).keys() | vars(replica).keys())
    handle.remove()
