"""The cascade: light classifiers that decide which frames and regions the detector sees."""
