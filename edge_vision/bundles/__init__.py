"""Model bundles: one folder with a manifest (`bundle.yaml`), graphs and labels.

    load_bundle("ssdlite_mobilenet_v2_coco")   a bundle of the store, by name
    load_bundle("/path/to/bundle")             a bundle anywhere, by folder

`python -m edge_vision models --help` makes, lists, checks and shows bundles.

    schema      the checks that a manifest is built from; every error names the key
    manifest    bundle.yaml <-> Manifest
    store       folders on disk: the cache, load_bundle, list_bundles
    importer    makes a bundle from a model file of one's own
    fetch       makes the bundles that this package knows (recipes) from registry packages (packages)
    convert_*   foreign weights -> ONNX
"""

from edge_vision.bundles.manifest import GraphSpec, Manifest, dump_manifest, parse_manifest
from edge_vision.bundles.store import Bundle, cache_dir, list_bundles, load_bundle

__all__ = [
    "Bundle",
    "GraphSpec",
    "Manifest",
    "cache_dir",
    "dump_manifest",
    "list_bundles",
    "load_bundle",
    "parse_manifest",
]
