package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// What an answer has to be.
const (
	expectNoError = "noerror"
	expectRecords = "records"
	expectReply   = "reply"
)

// dnsProbe asks one question. The query is what an iterative resolver without
// EDNS sends, with an ID of its own each time.
type dnsProbe struct {
	target    string
	transport string
	question  dns.Question
	expect    string
}

func newDNSProbe(c *Config) *dnsProbe {
	return &dnsProbe{
		target: c.Target, transport: c.Transport, expect: c.Expect,
		question: dns.Question{Name: dns.Fqdn(c.Query), Qtype: dns.StringToType[c.Type], Qclass: dns.ClassINET},
	}
}

func (p *dnsProbe) measure(ctx context.Context) error {
	conn, err := connect(ctx, p.transport, p.target)
	if err != nil {
		return err
	}
	defer conn.Close()
	id := dns.Id()
	query := &dns.Msg{MsgHdr: dns.MsgHdr{Id: id}, Question: []dns.Question{p.question}}
	link := &dns.Conn{Conn: conn, UDPSize: dns.DefaultMsgSize}
	if err := link.WriteMsg(query); err != nil {
		return fmt.Errorf("query: %s", brief(err))
	}
	for {
		header := dns.Header{}
		msg, err := link.ReadMsgHeader(&header)
		if err != nil {
			return fmt.Errorf("reply: %s", brief(err))
		}
		// Another's reply is waited past, as a resolver does (RFC 5452 §9.1).
		if header.Id == id {
			return p.judge(msg)
		}
	}
}

// judge compares a message that has the query's ID.
func (p *dnsProbe) judge(msg []byte) error {
	var reply dns.Msg
	err := reply.Unpack(msg)
	switch {
	case err != nil:
		return fmt.Errorf("reply: %s", brief(err))
	case !reply.Response:
		return errors.New("reply: a query")
	case p.expect == expectReply:
		return nil
	case reply.Rcode != dns.RcodeSuccess:
		return fmt.Errorf("rcode %s", rcodeWord(reply.Rcode))
	case len(reply.Question) != 1 || !p.asked(reply.Question[0]):
		return errors.New("reply: to another question")
	case p.expect == expectRecords && !p.answered(reply.Answer):
		return fmt.Errorf("no record of type %s", dns.TypeToString[p.question.Qtype])
	}
	return nil
}

func (p *dnsProbe) asked(q dns.Question) bool {
	return q.Qtype == p.question.Qtype && q.Qclass == p.question.Qclass && strings.EqualFold(q.Name, p.question.Name)
}

func (p *dnsProbe) answered(records []dns.RR) bool {
	for _, rr := range records {
		if rr.Header().Rrtype == p.question.Qtype {
			return true
		}
	}
	return false
}

func rcodeWord(rcode int) string {
	if word, ok := dns.RcodeToString[rcode]; ok {
		return word
	}
	return fmt.Sprint(rcode)
}
