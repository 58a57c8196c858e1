"""Training as PyTorch's CIFAR-10 tutorial teaches it: the reference that `cifar` is measured against.

Pictures become PIL images, ToTensor and Normalize make them tensors one by one in two loader processes, each step is
eager, and `loss.item()` follows each step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, optim
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from cifar.data.datasets import Dataset as Images
from cifar.training.hparams import Hparams
from cifar.training.models import layer_sizes


class TutorialNet(nn.Module):
    """The tutorial's module; its layers have the names, shapes and initial values of `cifar.training.models.Net`."""

    def __init__(self, hparams: Hparams, classes: int) -> None:
        super().__init__()
        channels1, channels2, units1, units2 = layer_sizes(hparams.model, hparams.width)
        self.conv1 = nn.Conv2d(3, channels1, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(channels1, channels2, 5)
        self.fc1 = nn.Linear(channels2 * 5 * 5, units1)
        self.fc2 = nn.Linear(units1, units2)
        self.fc3 = nn.Linear(units2, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits


class Pictures(Dataset[tuple[Tensor, int]]):
    """What torchvision.datasets.CIFAR10 does: an array in memory, a PIL image and its transform at each access."""

    def __init__(self, images: Images, index: Tensor) -> None:
        pixels = images.images.permute(0, 2, 3, 1)
        # torchvision, too, reads batches of 10,000 and stacks them: what it frees thereby sets how malloc behaves.
        self.data = np.vstack([pixels[some].numpy() for some in index.split(10_000)])  # N x 32 x 32 x 3
        self.targets = images.labels[index].tolist()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
        )

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[number])), self.targets[number]

    def __len__(self) -> int:
        return len(self.targets)


class Tutorial:
    """The tutorial's trial, with the network, images and hyperparameters of one of `cifar`."""

    def __init__(self, hparams: Hparams, images: Images, index: Tensor, device: torch.device, loaders: int = 2) -> None:
        torch.manual_seed(hparams.seed)
        self.device = device
        self.loaders = loaders
        self.net = TutorialNet(hparams, len(images.classes)).to(device)
        self.optimizer = optim.SGD(self.net.parameters(), lr=hparams.lr, momentum=hparams.momentum)
        self.criterion = nn.CrossEntropyLoss()
        pictures = Pictures(images, index)
        self.loader = DataLoader(pictures, batch_size=hparams.batch_size, shuffle=True, num_workers=loaders)

    def train_epoch(self, on_step: Callable[[], None] = lambda: None) -> float:
        """One pass over the images; returns the mean of the batches' losses."""
        self.net.train()
        running_loss = 0.0
        for inputs, labels in self.loader:
            inputs, labels = inputs.to(self.device), labels.to(self.device)
            self.optimizer.zero_grad()
            outputs = self.net(inputs)
            loss = self.criterion(outputs, labels)
            loss.backward()
            self.optimizer.step()
            running_loss += loss.item()
            on_step()
        return running_loss / len(self.loader)

    def accuracy(self, images: Images, index: Tensor) -> float:
        correct = 0
        self.net.eval()
        with torch.no_grad():
            for inputs, labels in DataLoader(Pictures(images, index), batch_size=64, num_workers=self.loaders):
                outputs = self.net(inputs.to(self.device))
                correct += int((outputs.argmax(1) == labels.to(self.device)).sum())
        return correct / len(index)
