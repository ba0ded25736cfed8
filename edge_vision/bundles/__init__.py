"""Model bundles: one folder with a manifest (`bundle.yaml`), graphs and labels.

    load_bundle("nanodet")   a bundle of the store, by name
    load_bundle("/path/to/bundle")             a bundle anywhere, by folder

`edge-vision models` makes, imports, lists, verifies and shows bundles.

    schema    validation of YAML; every error names the key
    manifest  bundle.yaml -> Manifest
    store     folders on disk: the cache, load_bundle, list_bundles
    ladder    ladder.yaml -> ever faster bundles
"""

from edge_vision.bundles.manifest import GraphSpec, Manifest, parse_manifest
from edge_vision.bundles.store import Bundle, cache_dir, list_bundles, load_bundle

__all__ = [
    "Bundle",
    "GraphSpec",
    "Manifest",
    "cache_dir",
    "list_bundles",
    "load_bundle",
    "parse_manifest",
]
