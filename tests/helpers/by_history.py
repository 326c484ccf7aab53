"""Feedback from tables over histories, read from a memory that counts them."""

import jax.numpy as jnp
import numpy as np

import dynmech as dm


class SignalsByHistory(dm.AbstractFeedback):
    """Tables (H, m, Zp, Z1, ..., Zn); the rule's memory is the row of the history."""

    table: np.ndarray

    def bind(self, utilities, weights):
        return self

    def alphabet(self, products):
        return self.table.shape[2:]

    def periodic(self):
        return False

    def likelihood(self, memory, shown, period, utilities):
        law = jnp.asarray(self.table)[memory[0]]
        return law.reshape(law.shape[0], -1)
