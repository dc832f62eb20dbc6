"""The tools, in the order in which the model is told of them. One file each; adding one is a file and a line here."""

from agent.tool import Tool
from agent.tools.bash import BASH
from agent.tools.bead import BEAD
from agent.tools.edit import EDIT
from agent.tools.find import FIND
from agent.tools.read import READ
from agent.tools.recall import RECALL
from agent.tools.remember import REMEMBER
from agent.tools.write import WRITE

TOOLS: tuple[Tool, ...] = (READ, FIND, WRITE, EDIT, BASH, REMEMBER, RECALL, BEAD)
