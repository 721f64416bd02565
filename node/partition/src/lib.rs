//! Leader of one partition, decided: high watermark, acknowledgements, waiting fetches.
