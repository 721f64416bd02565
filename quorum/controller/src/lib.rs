//! What the controller decides: topics, partitions, placement, configs, producer ids.
