//! The pipeline: one thread writes frames while the writer encodes the next.
//!
//! Invariant: frames are committed in order, one at a time, and none after one that was given up. If no frame is under
//! way, the calling thread commits the frame itself: a lone record then waits for no other thread.
//! Not here: what committing is (`committer`).

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::committer::Committer;
use super::encoder::Frame;
use crate::engine::background::spawn;
use crate::lifeline::Supervisor;
use crate::locks::IgnorePoison;

/// Frames that may wait behind the one that is being written.
const WAITING_MAX: usize = 2;

/// See the module.
pub(super) struct Pipeline {
    committer: Arc<Mutex<Committer>>,
    /// None once writing was given up: then nothing more is committed.
    thread: Option<CommitThread>,
    /// Frames that the thread has not returned yet.
    under_way: usize,
}

struct CommitThread {
    frames: SyncSender<Frame>,
    written: Receiver<Frame>,
    handle: JoinHandle<()>,
}

/// The service is shutting down, and records could not be written.
#[derive(Debug)]
pub(super) struct GivenUp;

impl Pipeline {
    /// Starts the thread.
    pub(super) fn start(committer: Committer, supervisor: &Arc<impl Supervisor + 'static>) -> std::io::Result<Self> {
        let committer = Arc::new(Mutex::new(committer));
        let (frames, waiting) = sync_channel::<Frame>(WAITING_MAX);
        // Never full: no more frames than this are under way.
        let (done, written) = sync_channel(WAITING_MAX + 2);
        let shared = Arc::clone(&committer);
        let work = move || {
            while let Ok(mut frame) = waiting.recv() {
                // Returning drops both channels, which tells the writer that this thread gave up.
                if !lock(&shared).commit(&mut frame) || done.send(frame).is_err() {
                    return;
                }
            }
        };
        let handle = spawn("audit-commit", supervisor, work)?;
        Ok(Self { committer, thread: Some(CommitThread { frames, written, handle }), under_way: 0 })
    }

    /// Commits a frame on this thread if it is the last for now and none is under way; else hands it to the other thread.
    pub(super) fn commit(
        &mut self,
        mut frame: Frame,
        is_last: bool,
        mut take_back: impl FnMut(Frame),
    ) -> Result<(), GivenUp> {
        let thread = self.thread.as_ref().ok_or(GivenUp)?;
        while let Ok(written) = thread.written.try_recv() {
            self.under_way -= 1;
            take_back(written);
        }
        if is_last && self.under_way == 0 {
            let committed = lock(&self.committer).commit(&mut frame);
            take_back(frame);
            return if committed { Ok(()) } else { Err(GivenUp) };
        }
        thread.frames.send(frame).map_err(|_| GivenUp)?;
        self.under_way += 1;
        Ok(())
    }

    /// Waits until everything is committed.
    pub(super) fn settle(&mut self) -> Result<(), GivenUp> {
        let thread = self.thread.as_ref().ok_or(GivenUp)?;
        while self.under_way > 0 {
            thread.written.recv().map_err(|_| GivenUp)?;
            self.under_way -= 1;
        }
        Ok(())
    }

    /// Ends the thread once it has committed its frames. Nothing can be committed afterwards.
    pub(super) fn end(&mut self) {
        if let Some(CommitThread { frames, written, handle }) = self.thread.take() {
            drop(frames);
            if handle.join().is_err() {
                tracing::error!("the thread that writes the audit log ended by a panic");
            }
            drop(written);
        }
    }

    /// The committer, for work between frames.
    pub(super) fn committer(&self) -> MutexGuard<'_, Committer> {
        lock(&self.committer)
    }
}

fn lock(committer: &Mutex<Committer>) -> MutexGuard<'_, Committer> {
    committer.lock().ignore_poison()
}
