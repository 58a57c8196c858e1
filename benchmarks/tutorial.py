"""Training as PyTorch's CIFAR-10 tutorial teaches it: the reference that `cifar` is measured against.

Pictures become PIL images, ToTensor and Normalize make them tensors one by one in two loader processes, each step is
eager, and `loss.item()` follows each step.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, optim
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from cifar.data import Dataset as Images
from cifar.hparams import Hparams
from cifar.models import layer_sizes


class TutorialNet(nn.Module):
    """The tutorial's module; its layers have the names, shapes and initial values of `cifar.models.Net`."""

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

    def __init__(self, dataset: Images, index: Tensor) -> None:
        self.data = dataset.images[index].permute(0, 2, 3, 1).contiguous().cpu().numpy()  # N x 32 x 32 x 3
        self.targets = dataset.labels[index].tolist()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
        )

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.data[number])
        return self.transform(image), self.targets[number]

    def __len__(self) -> int:
        return len(self.targets)


class Tutorial:
    """The tutorial's trial: same network, images and hyperparameters as one of `cifar`."""

    def __init__(self, hparams: Hparams, dataset: Images, index: Tensor) -> None:
        torch.manual_seed(hparams.seed)
        self.device = dataset.images.device
        self.net = TutorialNet(hparams, len(dataset.classes)).to(self.device)
        self.optimizer = optim.SGD(self.net.parameters(), lr=hparams.lr, momentum=hparams.momentum)
        self.criterion = nn.CrossEntropyLoss()
        self.loader = DataLoader(Pictures(dataset, index), batch_size=hparams.batch_size, shuffle=True, num_workers=2)

    def train_epoch(self) -> float:
        """One pass over the images; returns the mean of the batches' losses."""
        running_loss = 0.0
        for inputs, labels in self.loader:
            inputs, labels = inputs.to(self.device), labels.to(self.device)
            self.optimizer.zero_grad()
            outputs = self.net(inputs)
            loss = self.criterion(outputs, labels)
            loss.backward()
            self.optimizer.step()
            running_loss += loss.item()
        return running_loss / len(self.loader)
