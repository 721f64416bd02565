//! The daemon's real code under one seed: crashes, torn writes, failing disks, cut connections.
