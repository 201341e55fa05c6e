use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Code, Failure, Registry, TaskContext, TaskReturn};

type Load<K, O> = Arc<dyn Fn(K) -> LocalBoxFuture<'static, Result<Option<O>, Failure>> + Send + Sync>;

/// Objects that tasks are bound to by their keys: how one is loaded, and what can be done with it.
///
/// A bound task stores the key and never the object. Each run loads the object anew and calls the
/// method with it; an object that is not there fails the run, and the error names the key.
///
/// ```
/// use callboard::task::{ObjectCall, Objects, Registry, Task, TaskContext};
///
/// struct Account { number: u32 }
///
/// async fn find(number: u32) -> Result<Option<Account>, std::io::Error> {
///     Ok((number < 100).then_some(Account { number }))
/// }
///
/// async fn remind(_: TaskContext, account: Account, text: String) {
///     println!("{}: {text}", account.number);
/// }
///
/// let registry = Registry::new().objects(
///     Objects::new("account", find)
///         .method("remind", remind)
///         .method("close", |_: TaskContext, account: Account, ()| async move { drop(account) }),
/// );
/// assert_eq!(registry.names(), ["account.close", "account.remind"]);
///
/// let task = Task::new("account.remind").args(ObjectCall::new(7, "pay")).trigger("0 8 1 * *");
/// # let _ = task;
/// ```
pub struct Objects<K, O> {
    name: String,
    load: Load<K, O>,
    methods: Vec<(String, Code)>,
}

impl<K, O> Objects<K, O>
where
    K: DeserializeOwned + 'static,
    O: 'static,
{
    /// Objects called `name`, and how one is loaded by its key: `None` when there is none.
    pub fn new<F, Fut, E>(name: impl Into<String>, load: F) -> Self
    where
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<O>, E>> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self {
            name: name.into(),
            load: Arc::new(move |key| {
                let loaded = load(key);
                async move { loaded.await.map_err(|error| Failure::from_error(&*error.into())) }.boxed_local()
            }),
            methods: Vec::new(),
        }
    }

    /// Adds a method: the handler `name of the objects.name of the method`. It is given the object,
    /// and what the task carries beside the key (take `()` when that is nothing).
    pub fn method<F, U, Fut>(mut self, name: impl AsRef<str>, method: F) -> Self
    where
        F: Fn(TaskContext, O, U) -> Fut + Send + Sync + 'static,
        U: DeserializeOwned + 'static,
        Fut: Future + 'static,
        Fut::Output: TaskReturn,
    {
        let (kind, load, method) = (self.name.clone(), self.load.clone(), Arc::new(method));
        let code = Code::from_async(move |run: TaskContext, call: ObjectCall| {
            let (kind, load, method) = (kind.clone(), load.clone(), method.clone());
            async move {
                let ObjectCall { key, userdata } = call;
                let known = K::deserialize(&key)
                    .map_err(|error| Failure::new(format!("{key} is no key of `{kind}`: {error}")))?;
                let userdata = U::deserialize(&userdata)
                    .map_err(|error| Failure::new(format!("the userdata does not decode: {error}")))?;
                match load(known).await {
                    Ok(Some(object)) => method(run, object, userdata).await.into_result(),
                    Ok(None) => Err(Failure::new(format!(
                        "there is no `{kind}` with the key {key}; if it is gone for good, delete the task"
                    ))),
                    Err(failure) => {
                        Err(Failure::new(format!("`{kind}` with the key {key} was not loaded: {failure}")))
                    }
                }
            }
        });
        self.methods.push((format!("{}.{}", self.name, name.as_ref()), code));
        self
    }
}

impl Registry {
    /// Registers the methods of objects that are found by their keys. A name that is taken is
    /// reported by [`check`](Self::check).
    pub fn objects<K, O>(self, objects: Objects<K, O>) -> Self {
        objects.methods.into_iter().fold(self, |registry, (name, code)| registry.register_code(name, code))
    }
}

impl<K, O> fmt::Debug for Objects<K, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.methods.iter().map(|(name, _)| name)).finish()
    }
}

/// The arguments of a task that is bound to an object: its key, and what the method is given beside
/// the object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectCall<K = Value, U = Value> {
    /// The key.
    #[serde(rename = "$key")]
    pub key: K,
    /// What the method is given beside the object.
    #[serde(default)]
    pub userdata: U,
}

impl<K: Serialize, U: Serialize> ObjectCall<K, U> {
    /// A call of a method of the object with this key.
    pub fn new(key: K, userdata: U) -> Self {
        Self { key, userdata }
    }
}
