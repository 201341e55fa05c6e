//! What the attribute needs to know about the function.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, ReturnType, Type};

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
        let make = if self.blocking { quote!(from_blocking) } else { quote!(from_async) };
        // What is wrong with the returned type is said there.
        let span = match &function.sig.output {
            ReturnType::Default => name.span(),
            ReturnType::Type(_, returned) => returned.span(),
        };
        // The closure's own names are not those of the program.
        let span = span.resolved_at(Span::mixed_site());
        let call = match (self.context, &self.args) {
            (false, None) => quote_spanned!(span=> |_: #krate::task::TaskContext, ()| #name()),
            (true, None) => quote_spanned!(span=> |context: #krate::task::TaskContext, ()| #name(context)),
            (false, Some(args)) => {
                quote_spanned!(span=> |_: #krate::task::TaskContext, args: #args| #name(args))
            }
            (true, Some(args)) => {
                quote_spanned!(span=> |context: #krate::task::TaskContext, args: #args| #name(context, args))
            }
        };
        quote!(#krate::task::Code::#make(#call))
    }
}

fn is_context(written: &Type) -> bool {
    match written {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "TaskContext"),
        Type::Group(group) => is_context(&group.elem),
        Type::Paren(paren) => is_context(&paren.elem),
        _ => false,
    }
}
