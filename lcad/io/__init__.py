"""Files in and out: photographs with their colour profiles and metadata, label maps, contact sheets."""
