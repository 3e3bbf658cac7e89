//! The executable as its worker sees it: messages in, messages out, with real streams made by ffmpeg.

mod audio;
mod captions;
mod child;
mod clip;
mod codecs;
mod hostile;
mod keys;
mod life;
mod stamps;
