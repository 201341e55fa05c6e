use std::fmt;

use tokio::sync::watch;

/// An address that follows a child over its restarts: cheap to clone, usable from anywhere.
///
/// ```
/// use callboard::supervision::Link;
///
/// let (owner, link) = Link::new();
/// assert_eq!(link.get(), None);
/// owner.point_to("the first");
/// assert_eq!(link.get(), Some("the first"));
/// owner.cut();
/// assert_eq!(link.get(), None);
/// ```
pub struct Link<T>(watch::Receiver<Option<T>>);

/// The end of a [`Link`] that says where it leads. Dropping it cuts the link.
pub struct LinkOwner<T>(watch::Sender<Option<T>>);

impl<T: Clone> Link<T> {
    /// A link that leads nowhere yet, and its owner.
    pub fn new() -> (LinkOwner<T>, Self) {
        let (sender, receiver) = watch::channel(None);
        (LinkOwner(sender), Self(receiver))
    }

    /// Where it leads now; `None` while the child is down.
    pub fn get(&self) -> Option<T> {
        self.0.borrow().clone()
    }

    /// Waits until it leads somewhere; `None` when it never will again, because the owner is gone.
    pub async fn wait(&self) -> Option<T> {
        self.wait_for(|_| true).await
    }

    /// Waits until it leads to something `fit`: an address of a living actor, say, and not that of
    /// one whose death is not known here yet.
    pub async fn wait_for(&self, mut fit: impl FnMut(&T) -> bool) -> Option<T> {
        let mut receiver = self.0.clone();
        let found = receiver.wait_for(|target| target.as_ref().is_some_and(&mut fit)).await.ok()?;
        found.clone()
    }
}

impl<T: PartialEq> Link<T> {
    /// Waits until it does not lead to `target` any more.
    pub(crate) async fn turned_from(&self, target: &T) {
        let mut receiver = self.0.clone();
        // Without an owner it leads nowhere.
        receiver.wait_for(|present| present.as_ref() != Some(target)).await.ok();
    }
}

impl<T> LinkOwner<T> {
    /// Leads the link to `target`.
    pub fn point_to(&self, target: T) {
        self.0.send_replace(Some(target));
    }

    /// Leads the link nowhere.
    pub fn cut(&self) {
        self.0.send_replace(None);
    }

    /// One more end to hold.
    pub fn link(&self) -> Link<T> {
        Link(self.0.subscribe())
    }
}

impl<T> Drop for LinkOwner<T> {
    fn drop(&mut self) {
        self.cut();
    }
}

impl<T> Clone for Link<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Link<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.borrow().is_some() { "Link(up)" } else { "Link(down)" })
    }
}

impl<T> fmt::Debug for LinkOwner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkOwner")
    }
}
