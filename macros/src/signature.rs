//! What the attribute needs to know about the function.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, Ident, ItemFn, ReturnType, Type};

/// How the function is called.
pub(crate) struct Signature {
    blocking: bool,
    context: bool,
    args: Option<Type>,
}

impl Signature {
    pub(crate) fn of(function: &ItemFn) -> syn::Result<Self> {
        let signature = &function.sig;
        if !signature.generics.params.is_empty() {
            let message = "a task's function has no generics: each run calls the same code";
            return Err(Error::new_spanned(&signature.generics, message));
        }
        if let Some(word) = &signature.unsafety {
            return Err(Error::new_spanned(word, "a task's function is safe to call"));
        }
        let mut types = Vec::new();
        for input in &signature.inputs {
            match input {
                FnArg::Receiver(receiver) => {
                    let message = "a task's function stands outside of `impl`: there is no `self` in a run";
                    return Err(Error::new_spanned(receiver, message));
                }
                FnArg::Typed(input) => types.push(&*input.ty),
            }
        }
        let (context, args) = match types[..] {
            [] => (false, None),
            [only] if is_context(only) => (true, None),
            [only] => (false, Some(only)),
            [context, args] if is_context(context) => (true, Some(args)),
            [first, _] => {
                return Err(Error::new_spanned(first, "of two parameters the first is `TaskContext`"));
            }
            [_, _, third, ..] => {
                let message = "there are at most two parameters, `TaskContext` and the arguments: \
                               put these in a struct or a tuple";
                return Err(Error::new_spanned(third, message));
            }
        };
        if let Some(Type::Reference(reference)) = args {
            let message = "the arguments are decoded for each run: take them by value, `String` for text";
            return Err(Error::new_spanned(reference, message));
        }
        Ok(Self { blocking: signature.asyncness.is_none(), context, args: args.cloned() })
    }

    pub(crate) fn takes_args(&self) -> bool {
        self.args.is_some()
    }

    /// The function as `Code`.
    pub(crate) fn code(&self, function: &ItemFn, krate: &syn::Path) -> TokenStream {
        let name = &function.sig.ident;
        let make = if self.blocking { "from_blocking" } else { "from_async" };
        // Where it is said that the arguments or the returned type will not do.
        let place = match (&self.args, &function.sig.output) {
            (Some(args), ReturnType::Default) => args.span(),
            (None, ReturnType::Type(_, returned)) => returned.span(),
            _ => name.span(),
        };
        let krate: TokenStream = quote!(#krate).into_iter().map(|token| at(token, place)).collect();
        let make = Ident::new(make, place);
        let mut called = name.clone();
        called.set_span(name.span().located_at(place));
        // These names are the closure's own, not the program's.
        let [context, args] = ["context", "args"].map(|own| Ident::new(own, Span::mixed_site()));
        let code = match (self.context, &self.args) {
            (false, None) => quote_spanned!(place=> |_: #krate::task::TaskContext, ()| #called()),
            (true, None) => {
                quote_spanned!(place=> |#context: #krate::task::TaskContext, ()| #called(#context))
            }
            (false, Some(decoded)) => {
                quote_spanned!(place=> |_: #krate::task::TaskContext, #args: #decoded| #called(#args))
            }
            (true, Some(_)) => quote!(#called),
        };
        quote_spanned!(place=> #krate::task::Code::#make(#code))
    }
}

fn at(mut token: TokenTree, place: Span) -> TokenTree {
    token.set_span(place);
    token
}

fn is_context(written: &Type) -> bool {
    match written {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "TaskContext"),
        Type::Group(group) => is_context(&group.elem),
        Type::Paren(paren) => is_context(&paren.elem),
        _ => false,
    }
}
