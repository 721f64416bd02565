//! Mail from any shard to one shard: bounded, never blocking, and the only way between shards.

use crate::ring;

/// Makes a mailbox that holds at most `limit` pieces of mail.
///
/// The mailbox belongs to the shard that first receives from it; until then it may be moved.
pub fn mailbox<T: Send + 'static>(limit: usize) -> (Mailer<T>, Mailbox<T>) {
    assert!(limit > 0, "a mailbox that holds nothing");
    world!(
        {
            let (mailer, mailbox) = ring::mailbox(limit);
            (Mailer(MailerInner::Ring(mailer)), Mailbox(Inner::Ring(mailbox)))
        },
        {
            let (mailer, mailbox) = crate::sim::mailbox(limit);
            (Mailer(MailerInner::Sim(mailer)), Mailbox(Inner::Sim(mailbox)))
        }
    )
}

/// The sending end; any thread may hold a clone.
pub struct Mailer<T>(MailerInner<T>);

enum MailerInner<T> {
    Ring(ring::Mailer<T>),
    #[cfg(feature = "sim")]
    Sim(crate::sim::Mailer<T>),
}

/// The receiving end.
pub struct Mailbox<T>(Inner<T>);

enum Inner<T> {
    Ring(ring::Mailbox<T>),
    #[cfg(feature = "sim")]
    Sim(crate::sim::Mailbox<T>),
}

impl<T: Send + 'static> Mailer<T> {
    /// Sends, or hands the mail back where the box is full. Mail to a mailbox that is gone is
    /// accepted and dropped: its shard has ended, and so does the process.
    pub fn send(&self, mail: T) -> Result<(), T> {
        match &self.0 {
            MailerInner::Ring(mailer) => mailer.send(mail),
            #[cfg(feature = "sim")]
            MailerInner::Sim(mailer) => mailer.send(mail),
        }
    }

    /// How much mail waits to be received.
    pub fn len(&self) -> usize {
        match &self.0 {
            MailerInner::Ring(mailer) => mailer.len(),
            #[cfg(feature = "sim")]
            MailerInner::Sim(mailer) => mailer.len(),
        }
    }

    /// Whether no mail waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Mailer<T> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            MailerInner::Ring(mailer) => MailerInner::Ring(mailer.clone()),
            #[cfg(feature = "sim")]
            MailerInner::Sim(mailer) => MailerInner::Sim(mailer.clone()),
        })
    }
}

impl<T: Send + 'static> Mailbox<T> {
    /// The next mail, in the order it was sent. Cancel-safe.
    pub async fn recv(&mut self) -> T {
        each!(&mut self.0, mailbox => mailbox.recv().await)
    }

    /// The next mail, if any waits.
    pub fn try_recv(&mut self) -> Option<T> {
        each!(&mut self.0, mailbox => mailbox.try_recv())
    }
}
