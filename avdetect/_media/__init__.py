"""The parts behind `avdetect.media`, which alone imports them: the ffmpeg process, its commands, and its words."""
