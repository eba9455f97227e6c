// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/template/parse"
)

// A rewriter changes one parsed template.
type rewriter struct {
	tree  *parse.Tree
	marks bool
}

func (w rewriter) list(l *parse.ListNode) {
	if l == nil {
		return
	}
	var nodes []parse.Node
	for _, n := range l.Nodes {
		if w.marks && (n.Type() == parse.NodeText || n.Type() == parse.NodeAction) {
			nodes = append(nodes, w.mark(n.Position(), n.Type() == parse.NodeText))
		}
		w.node(n)
		nodes = append(nodes, n)
	}
	l.Nodes = nodes
}

func (w rewriter) node(n parse.Node) {
	switch n := n.(type) {
	case *parse.ActionNode:
		w.pipe(n.Pipe, false)
		if len(n.Pipe.Decl) == 0 {
			n.Pipe.Cmds = append(n.Pipe.Cmds, w.call(n.Position(), printName))
		}
	case *parse.IfNode:
		w.branch(&n.BranchNode, true)
	case *parse.WithNode:
		w.branch(&n.BranchNode, true)
	case *parse.RangeNode:
		w.branch(&n.BranchNode, false)
		n.Pipe.Cmds = append(n.Pipe.Cmds, w.call(n.Position(), itemsName))
	case *parse.TemplateNode:
		if n.Pipe != nil {
			w.pipe(n.Pipe, false)
		}
	}
}

func (w rewriter) branch(b *parse.BranchNode, soft bool) {
	w.pipe(b.Pipe, soft)
	w.list(b.List)
	w.list(b.ElseList)
}

// soft are the functions that say what happens without a value, and which of
// their arguments may have none: all, or only the last.
var soft = map[string]bool{
	"default": true, "required": true, "coalesce": true, "ternary": true, "empty": true,
	"and": true, "or": true, "not": true,
}

// pipe rewrites a pipeline. In a soft one what it results in may be nothing.
func (w rewriter) pipe(p *parse.PipeNode, maybe bool) {
	for i, c := range p.Cmds {
		takes := maybe && i == len(p.Cmds)-1 // what this command results in
		if i < len(p.Cmds)-1 {
			takes = soft[w.function(p.Cmds[i+1])]
		}
		w.command(c, takes)
	}
}

// function is the name of the function that a command calls, or "".
func (w rewriter) function(c *parse.CommandNode) string {
	if id, ok := c.Args[0].(*parse.IdentifierNode); ok {
		return id.Ident
	}
	return ""
}

// lookups are functions that look something up; each has a variant with the
// mark that returns nil for what is missing.
var lookups = []string{"index", "env", "getenv"}

func (w rewriter) command(c *parse.CommandNode, maybe bool) {
	name := w.function(c)
	// dockerize's order, in which the constant would always be the result here.
	if name == "default" && len(c.Args) == 3 && constant(c.Args[2]) && !constant(c.Args[1]) {
		message := fmt.Sprintf("default wants the default first, and then the value: default … %s", c.Args[1])
		c.Args = append(w.call(c.Position(), "fail").Args, w.text(c.Position(), message))
		return
	}
	switch at := c.Args[0].Position(); {
	case maybe && slices.Contains(lookups, name):
		c.Args[0] = parse.NewIdentifier(name + optional).SetPos(at).SetTree(w.tree)
	case name == "env" || name == "getenv":
		c.Args = slices.Insert(c.Args, 1, w.text(at, w.where(c.Args[0])))
	}
	if name != "" {
		// "if and .a .b": the result may be nothing, and so may the arguments.
		maybe = soft[name]
	}
	for i, arg := range c.Args {
		c.Args[i] = w.arg(arg, maybe)
	}
}

func constant(n parse.Node) bool {
	switch n.Type() {
	case parse.NodeString, parse.NodeNumber, parse.NodeBool:
		return true
	}
	return false
}

// arg returns what takes an argument's place.
func (w rewriter) arg(n parse.Node, maybe bool) parse.Node {
	switch n := n.(type) {
	case *parse.FieldNode:
		return w.get(n, parse.Node(&parse.DotNode{NodeType: parse.NodeDot, Pos: n.Pos}), n.Ident, maybe)
	case *parse.VariableNode:
		if len(n.Ident) > 1 {
			v := *n
			v.Ident = n.Ident[:1]
			return w.get(n, &v, n.Ident[1:], maybe)
		}
	case *parse.ChainNode:
		return w.get(n, w.arg(n.Node, maybe), n.Field, maybe)
	case *parse.PipeNode:
		w.pipe(n, maybe)
	}
	return n
}

// get is the call that takes the place of base.a.b.
func (w rewriter) get(n, base parse.Node, keys []string, maybe bool) parse.Node {
	name := getName
	if maybe {
		name = maybeName
	}
	call := w.call(n.Position(), name)
	call.Args = append(call.Args, w.text(n.Position(), w.where(n)), w.text(n.Position(), n.String()), base)
	for _, key := range keys {
		call.Args = append(call.Args, w.text(n.Position(), key))
	}
	return &parse.PipeNode{NodeType: parse.NodePipe, Pos: n.Position(), Cmds: []*parse.CommandNode{call}}
}

// where is the file and the line that a node is in.
func (w rewriter) where(n parse.Node) string {
	location, _ := w.tree.ErrorContext(n)
	if i := strings.LastIndexByte(location, ':'); i >= 0 {
		location = location[:i] // the column
	}
	return location
}

// mark is an action that notes where the text after it is from.
func (w rewriter) mark(at parse.Pos, own bool) parse.Node {
	call := w.call(at, markName)
	call.Args = append(call.Args, &parse.NumberNode{NodeType: parse.NodeNumber, Pos: at, IsInt: true, Int64: int64(at), Text: strconv.Itoa(int(at))},
		&parse.BoolNode{NodeType: parse.NodeBool, Pos: at, True: own})
	return &parse.ActionNode{NodeType: parse.NodeAction, Pos: at, Pipe: &parse.PipeNode{NodeType: parse.NodePipe, Pos: at, Cmds: []*parse.CommandNode{call}}}
}

func (w rewriter) call(at parse.Pos, name string) *parse.CommandNode {
	return &parse.CommandNode{NodeType: parse.NodeCommand, Pos: at, Args: []parse.Node{parse.NewIdentifier(name).SetPos(at).SetTree(w.tree)}}
}

func (w rewriter) text(at parse.Pos, text string) parse.Node {
	return &parse.StringNode{NodeType: parse.NodeString, Pos: at, Quoted: strconv.Quote(text), Text: text}
}
