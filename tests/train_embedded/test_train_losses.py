"""Losses against slow, obvious references and hand-worked cases."""

import math

import pytest
import torch
from fiftyone_selfsame.fixtures.train_embedded.losses import (
    foreground_average,
    identity_loss,
    place_loss,
    tokens_at,
)
from torch.nn import functional


def unit(*shape, seed=0):
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_average_is_that_of_the_covered_tokens():
    tokens = torch.arange(8.0).view(1, 2, 2, 2) + 1
    masks = torch.zeros(1, 4, 4)
    masks[0, :2, :2] = 1
    masks[0, :2, 2] = 1

    found = foreground_average(tokens, masks)

    # The first patch is covered whole, the second by half.
    expected = (tokens[0, 0, 0] + 0.5 * tokens[0, 0, 1]) / 1.5
    torch.testing.assert_close(found[0], functional.normalize(expected, dim=0))


def test_identity_loss_is_the_mean_over_pairs_of_the_cross_entropy_against_other_objects():
    vectors, labels, temperature = unit(7, 5), torch.tensor([0, 0, 1, 1, 2, 2, 2]), 0.2
    losses = []
    for i in range(7):
        for j in range(7):
            if i != j and labels[i] == labels[j]:
                own = math.exp(float(vectors[i] @ vectors[j]) / temperature)
                rivals = sum(
                    math.exp(float(vectors[i] @ vectors[k]) / temperature) for k in range(7) if labels[k] != labels[i]
                )
                losses.append(-math.log(own / (own + rivals)))

    assert float(identity_loss(vectors, labels, temperature)) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_place_loss_is_the_cross_entropy_both_ways_with_the_mirrored_place_as_a_rival_forth():
    first, second, mirrored = unit(4, 6, seed=1), unit(4, 6, seed=2), unit(4, 6, seed=3)
    near = torch.zeros(4, 4, dtype=torch.bool)
    near[0, 1] = near[1, 0] = True
    has_mirrored = torch.tensor([True, False, True, False])
    weights, temperature = torch.tensor([1.0, 1.0, 0.5, 2.0]), 0.3
    total = 0.0
    for i in range(4):
        score = lambda a, b: math.exp(float(a @ b) / temperature)  # noqa: E731
        own = score(first[i], second[i])
        rivals = [j for j in range(4) if j != i and not near[i, j]]
        forth = own + sum(score(first[i], second[j]) for j in rivals)
        forth += score(first[i], mirrored[i]) if has_mirrored[i] else 0.0
        back = own + sum(score(first[j], second[i]) for j in rivals)
        total += float(weights[i]) * (math.log(forth / own) + math.log(back / own))

    found = place_loss(
        first, second, mirrored, near=near, has_mirrored=has_mirrored, weights=weights, temperature=temperature
    )

    assert float(found) == pytest.approx(total / (2 * float(weights.sum())), rel=1e-5)


def test_a_mirrored_place_that_looks_the_same_costs():
    tokens = unit(3, 8)
    options = {"near": torch.zeros(3, 3, dtype=torch.bool), "weights": torch.ones(3), "temperature": 0.1}
    flags = torch.ones(3, dtype=torch.bool)

    confused = place_loss(tokens, tokens, tokens, has_mirrored=flags, **options)
    apart = place_loss(tokens, tokens, -tokens, has_mirrored=flags, **options)

    assert float(confused) > float(apart) + 0.2


def test_tokens_at_patch_centres_are_those_tokens_and_halfway_their_mean():
    tokens = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(4))
    centres = torch.tensor([[2 * (2 + 0.5) / 4 - 1, 2 * (1 + 0.5) / 3 - 1], [2 * 3 / 4 - 1, 2 * (1 + 0.5) / 3 - 1]])

    found = tokens_at(tokens, torch.zeros(2, dtype=torch.long), centres)

    torch.testing.assert_close(found[0], functional.normalize(tokens[0, 1, 2], dim=0))
    torch.testing.assert_close(found[1], functional.normalize((tokens[0, 1, 2] + tokens[0, 1, 3]) / 2, dim=0))
