"""SGD with momentum and Adam: PyTorch's own fused updates, without the classes around them.

Making a torch.optim.Optimizer imports PyTorch's compiler, which takes a second that every trial would wait for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd


class Optimizer:
    """What both share. `state` is what an optimizer remembers from step to step, lists of one tensor per parameter."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        self.parameters: list[Tensor] = list(parameters)
        on = self.parameters[0].device
        # A captured step reads the learning rate from where it lies on the GPU.
        self._lr: Any = torch.tensor(lr, device=on) if on.type == "cuda" else lr
        self.weight_decay = weight_decay
        self.state: dict[str, list[Tensor]] = {}

    def set_lr(self, lr: float) -> None:
        if isinstance(self._lr, Tensor):
            self._lr.fill_(lr)
        else:
            self._lr = lr

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        self._update([parameter.grad for parameter in self.parameters if parameter.grad is not None])

    def _update(self, gradients: list[Tensor]) -> None:
        raise NotImplementedError

    def _zeros(self) -> list[Tensor]:
        return [torch.zeros_like(parameter) for parameter in self.parameters]

    def state_dict(self) -> dict[str, list[Tensor]]:
        return self.state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        for name, tensors in self.state.items():
            for tensor, saved in zip(tensors, state[name], strict=True):
                tensor.copy_(saved)


class Sgd(Optimizer):
    """Stochastic gradient descent with momentum."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.momentum = momentum
        self.nesterov = nesterov
        self.state = {"averages": self._zeros()}

    def _update(self, gradients: list[Tensor]) -> None:
        sgd(
            self.parameters,
            gradients,
            [*self.state["averages"]],
            fused=True,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            lr=self._lr,
            dampening=0.0,
            nesterov=self.nesterov,
            maximize=False,
        )


class Adam(Optimizer):
    """Adam, with PyTorch's defaults."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, lr, weight_decay)
        steps = [torch.zeros((), device=parameter.device) for parameter in self.parameters]
        self.state = {"averages": self._zeros(), "squares": self._zeros(), "steps": steps}

    def _update(self, gradients: list[Tensor]) -> None:
        adam(
            self.parameters,
            gradients,
            self.state["averages"],
            self.state["squares"],
            [],
            self.state["steps"],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._lr,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )
