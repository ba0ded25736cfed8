"""Recipes that make the shipped bundles from packages of public registries."""
